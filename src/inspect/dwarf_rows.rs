//! The line table of one unit, read as far as it is needed.
//!
//! A line table is a program for a small machine. It consists of sequences, mostly one for each function, and the machine
//! begins each of them anew. So a first reading, which stops at the sequence that is looked for, notes only where each lies
//! and which addresses it covers; then that one is read again for its rows.
//!
//! Invariants: no part of the program is read for addresses more than once; broken programs end where they break, and what
//! came before counts.
//!
//! Must not know: what a file's number means.
#![forbid(unsafe_code)]

use gimli::{LineProgramHeader, constants as dw};

use super::dwarf_bytes::Cursor;
use super::dwarf_calls::Reader;

/// From this address on, the source code is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: u64,
    pub(super) file: u64,
    /// 0 for none.
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Addresses without a gap, and where in the program their rows are.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    begin: u64,
    end: u64,
    at: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Rows {
    program: Program,
    sequences: Vec<Sequence>,
    /// Up to here the program was read for sequences.
    read: usize,
    /// Those of the sequence that was asked for last, and where it begins.
    rows: Vec<Row>,
    rows_of: Option<usize>,
}

impl Rows {
    /// `None` for machines that put several operations into one instruction.
    pub(super) fn new(header: &LineProgramHeader<Reader>) -> Option<Rows> {
        let program = Program::new(header)?;
        Some(Rows { program, sequences: Vec::new(), read: 0, rows: Vec::new(), rows_of: None })
    }

    /// The rows of the sequence that covers an address, by rising address; none if there is none.
    pub(super) fn around(&mut self, address: u64) -> &[Row] {
        let Some(at) = self.sequence(address) else { return &[] };
        if self.rows_of != Some(at) {
            self.rows_of = Some(at);
            let rows = &mut self.rows;
            rows.clear();
            let _ = self.program.run(at, |row| match rows.last_mut() {
                Some(last) if last.address == row.address => *last = row,
                _ => rows.push(row),
            });
        }
        &self.rows
    }

    /// The row that an address belongs to.
    pub(super) fn at(&mut self, address: u64) -> Option<Row> {
        let rows = self.around(address);
        let after = rows.partition_point(|row| row.address <= address);
        rows[..after].last().copied()
    }

    /// What all sequences cover.
    pub(super) fn ranges(&mut self) -> impl Iterator<Item = (u64, u64)> {
        while self.read_on().is_some() {}
        self.sequences.iter().map(|sequence| (sequence.begin, sequence.end))
    }

    fn sequence(&mut self, address: u64) -> Option<usize> {
        let covers = |sequence: &Sequence| (sequence.begin..sequence.end).contains(&address);
        if let Some(known) = self.sequences.iter().find(|known| covers(known)) {
            return Some(known.at);
        }
        while let Some(found) = self.read_on() {
            if found.is_some_and(|found| covers(&found)) {
                return found.map(|found| found.at);
            }
        }
        None
    }

    /// Reads on to the end of a sequence; nothing in it if that one is empty.
    fn read_on(&mut self) -> Option<Option<Sequence>> {
        let (at, mut begin) = (self.read, None);
        let Some((end, next)) = self.program.run(at, |row| begin = begin.or(Some(row.address))) else {
            self.read = self.program.bytes.len();
            return None;
        };
        self.read = next;
        let found = begin.filter(|begin| *begin < end).map(|begin| Sequence { begin, end, at });
        self.sequences.extend(found);
        Some(found)
    }
}

/// The program, and what its instructions mean.
#[derive(Debug)]
struct Program {
    bytes: &'static [u8],
    address_size: usize,
    /// Operations are counted in such steps.
    step: u64,
    line_base: i64,
    line_range: u8,
    opcode_base: u8,
    /// How many operands each standard opcode has, from the first.
    operands: &'static [u8],
}

/// Standard opcodes.
const COPY: u8 = 1;
const ADVANCE_PC: u8 = 2;
const ADVANCE_LINE: u8 = 3;
const SET_FILE: u8 = 4;
const SET_COLUMN: u8 = 5;
const NEGATE_STATEMENT: u8 = 6;
const SET_BASIC_BLOCK: u8 = 7;
const CONST_ADD_PC: u8 = 8;
const FIXED_ADVANCE_PC: u8 = 9;

impl Program {
    fn new(header: &LineProgramHeader<Reader>) -> Option<Program> {
        let encoding = header.line_encoding();
        if encoding.line_range == 0 || encoding.maximum_operations_per_instruction > 1 {
            return None;
        }
        Some(Program {
            bytes: header.raw_program_buf().slice(),
            address_size: header.address_size().into(),
            step: encoding.minimum_instruction_length.into(),
            line_base: encoding.line_base.into(),
            line_range: encoding.line_range,
            opcode_base: header.opcode_base(),
            operands: header.standard_opcode_lengths().slice(),
        })
    }

    /// Runs the sequence that begins at `at`, handing over its rows. Says which address it ends before, and where the next one
    /// begins; nothing at the end of the program, or where it breaks.
    #[inline]
    fn run(&self, at: usize, mut emit: impl FnMut(Row)) -> Option<(u64, usize)> {
        let mut bytes = Cursor::new(self.bytes, at);
        let mut row = Row { address: 0, file: 1, line: 1, column: 0 };
        // Of a function that the linker left out. Linkers put different things in the place of its address: the highest ones,
        // which the standard asks for, or 0, or a small number.
        let mut is_gone = false;
        let gone_from = (u64::MAX >> (64 - 8 * self.address_size.clamp(1, 8))) - 1;
        loop {
            let opcode = bytes.u8()?;
            if opcode >= self.opcode_base {
                let adjusted = opcode - self.opcode_base;
                let steps = adjusted / self.line_range;
                let lines = self.line_base + i64::from(adjusted - steps * self.line_range);
                row.line = row.line.wrapping_add(lines as u32);
                if !is_gone {
                    row.address = row.address.wrapping_add(self.step.wrapping_mul(steps.into()));
                    emit(row);
                }
                continue;
            }
            let mut advance = 0;
            match opcode {
                0 => {
                    let length = usize::try_from(bytes.uleb()?).ok()?;
                    let mut operand = bytes;
                    bytes.skip(length)?;
                    let kind = operand.u8().filter(|_| length > 0)?;
                    if kind == dw::DW_LNE_end_sequence.0 {
                        return Some((row.address, bytes.at));
                    }
                    if kind == dw::DW_LNE_set_address.0 {
                        let address = operand.uint(self.address_size)?;
                        // Addresses of a sequence never fall.
                        is_gone = address < row.address || address >= gone_from;
                        if !is_gone {
                            row.address = address;
                        }
                    }
                }
                COPY if is_gone => {}
                COPY => emit(row),
                ADVANCE_PC => advance = self.step.wrapping_mul(bytes.uleb()?),
                ADVANCE_LINE => row.line = row.line.wrapping_add(bytes.sleb()? as u32),
                SET_FILE => row.file = bytes.uleb()?,
                SET_COLUMN => row.column = bytes.uleb()? as u32,
                NEGATE_STATEMENT | SET_BASIC_BLOCK => {}
                CONST_ADD_PC => advance = self.step.wrapping_mul(((255 - self.opcode_base) / self.line_range).into()),
                FIXED_ADVANCE_PC => advance = bytes.uint(2)?,
                // The ends of prologues, and what the future brings.
                other => {
                    for _ in 0..*self.operands.get(usize::from(other) - 1)? {
                        bytes.skip_leb()?;
                    }
                }
            }
            if !is_gone {
                row.address = row.address.wrapping_add(advance);
            }
        }
    }
}
