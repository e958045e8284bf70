//! The functions of one unit, and the calls that were inlined into them.
//!
//! A unit's entries lie one after another, and where one ends follows from what stands in it. So functions are found by
//! going through all entries up to the one that is looked for: over each in one step where its kind alone says how long it
//! is. The calls inside of a function are read when the function is first asked about.
//!
//! Invariants: no entry is gone through for functions more than once; broken entries end the unit there, and what came
//! before counts.
//!
//! Must not know: which units there are, lines.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use gimli::{
    Abbreviation, Attribute, AttributeSpecification, AttributeValue, DwForm, Encoding, EndianSlice, Error,
    NativeEndian, Range, RangeListsOffset, UnitOffset, UnitRef, constants as dw,
};

use super::dwarf_bytes::Cursor;

pub(super) type Reader = EndianSlice<'static, NativeEndian>;

/// Which addresses an entry is about.
#[derive(Debug, Default)]
pub(super) struct Extent {
    pub(super) low: Option<u64>,
    pub(super) high: Option<u64>,
    pub(super) size: Option<u64>,
    pub(super) list: Option<RangeListsOffset>,
}

impl Extent {
    /// Takes from an attribute what it says about them.
    pub(super) fn take(&mut self, unit: UnitRef<'_, Reader>, attribute: &Attribute<Reader>) -> Result<(), Error> {
        match attribute.name() {
            dw::DW_AT_low_pc => self.low = unit.attr_address(attribute.value())?,
            dw::DW_AT_high_pc => match attribute.value() {
                AttributeValue::Udata(size) => self.size = Some(size),
                value => self.high = unit.attr_address(value)?,
            },
            dw::DW_AT_ranges => self.list = unit.attr_ranges_offset(attribute.value())?,
            _ => {}
        }
        Ok(())
    }

    /// The only range, if there is no list of them.
    pub(super) fn only(&self) -> Option<Range> {
        let begin = self.low?;
        let end = self.high.or_else(|| begin.checked_add(self.size?))?;
        (begin < end).then_some(Range { begin, end })
    }

    fn each(&self, unit: UnitRef<'_, Reader>, mut range: impl FnMut(Range)) -> Result<(), Error> {
        let Some(list) = self.list else {
            self.only().into_iter().for_each(range);
            return Ok(());
        };
        let mut all = unit.ranges(list)?;
        while let Some(found) = all.next()? {
            if found.begin < found.end {
                range(found);
            }
        }
        Ok(())
    }
}

/// A function and one of the ranges that it covers.
#[derive(Debug, Clone, Copy)]
struct Function {
    begin: u64,
    end: u64,
    at: UnitOffset,
}

/// A call that was inlined, and one of the ranges that it covers. They stand in the order of the entries: outer before inner.
#[derive(Debug, Clone, Copy)]
struct Inlined {
    begin: u64,
    end: u64,
    at: UnitOffset,
    /// In so many others.
    depth: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Functions {
    /// The unit, from its header.
    bytes: &'static [u8],
    /// Up to here it was gone through.
    read: usize,
    found: Vec<Function>,
    /// How to pass over an entry, by its kind's number.
    kinds: Vec<Option<Kind>>,
    inlined: HashMap<UnitOffset, Box<[Inlined]>>,
}

/// Kinds of entries in a unit. Compilers number them from 1.
const MOST_KINDS: u64 = 1 << 16;

impl Functions {
    pub(super) fn new(bytes: &'static [u8], first: UnitOffset) -> Functions {
        Functions { bytes, read: first.0, found: Vec::new(), kinds: Vec::new(), inlined: HashMap::new() }
    }

    /// The entries of the function at an address and of the inlined calls in it, outermost first; none if there is no function.
    pub(super) fn chain(&mut self, unit: UnitRef<'_, Reader>, address: u64) -> Vec<UnitOffset> {
        let Some(function) = self.function(unit, address) else { return Vec::new() };
        let inlined = self.inlined.entry(function).or_insert_with(|| inlined(unit, function).into());
        let mut chain = vec![function];
        for call in inlined {
            if call.depth + 1 == chain.len() && (call.begin..call.end).contains(&address) {
                chain.push(call.at);
            }
        }
        chain
    }

    fn function(&mut self, unit: UnitRef<'_, Reader>, address: u64) -> Option<UnitOffset> {
        let covers = |function: &&Function| (function.begin..function.end).contains(&address);
        if let Some(known) = self.found.iter().find(covers) {
            return Some(known.at);
        }
        while self.read < self.bytes.len() {
            let before = self.found.len();
            if self.next(unit).is_none() {
                self.read = self.bytes.len();
            }
            if let Some(found) = self.found[before..].iter().find(covers) {
                return Some(found.at);
            }
        }
        None
    }

    /// Goes on behind the next function with code, or to the end. Nothing if it cannot be read.
    fn next(&mut self, unit: UnitRef<'_, Reader>) -> Option<()> {
        let mut bytes = Cursor::new(self.bytes, self.read);
        while bytes.at < self.bytes.len() {
            let at = UnitOffset(bytes.at);
            let number = bytes.uleb()?;
            if number == 0 {
                // The end of what lies below an entry.
                continue;
            }
            let kind = match self.kinds.get(usize::try_from(number).ok()?) {
                Some(Some(kind)) => kind,
                _ => self.new_kind(unit, number)?,
            };
            match kind {
                Kind::Function => {
                    self.read = self.add(unit, at).ok()?;
                    return Some(());
                }
                Kind::Fixed(length) => bytes.skip(*length)?,
                Kind::Parts(parts) => parts.iter().try_for_each(|part| part.skip(&mut bytes))?,
                Kind::Strange => {
                    let mut entries = unit.entries_raw(Some(at)).ok()?;
                    let abbreviation = entries.read_abbreviation().ok()??;
                    entries.skip_attributes(abbreviation.attributes()).ok()?;
                    bytes.at = entries.next_offset().0;
                }
            }
        }
        self.read = bytes.at;
        Some(())
    }

    fn new_kind(&mut self, unit: UnitRef<'_, Reader>, number: u64) -> Option<&Kind> {
        let kind = Kind::new(unit.abbreviations.get(number)?, unit.encoding());
        let number = usize::try_from(number).ok().filter(|_| number < MOST_KINDS)?;
        if number >= self.kinds.len() {
            self.kinds.resize_with(number + 1, || None);
        }
        Some(self.kinds[number].insert(kind))
    }

    /// Notes what a function covers. Says where the next entry is.
    fn add(&mut self, unit: UnitRef<'_, Reader>, at: UnitOffset) -> Result<usize, Error> {
        let mut entries = unit.entries_raw(Some(at))?;
        let mut extent = Extent::default();
        if let Some(abbreviation) = entries.read_abbreviation()? {
            for attribute in abbreviation.attributes() {
                extent.take(unit, &entries.read_attribute(*attribute)?)?;
            }
        }
        extent.each(unit, |Range { begin, end }| self.found.push(Function { begin, end, at }))?;
        Ok(entries.next_offset().0)
    }
}

/// The inlined calls of a function, as far as they can be read.
fn inlined(unit: UnitRef<'_, Reader>, function: UnitOffset) -> Vec<Inlined> {
    let mut found = Vec::new();
    let _ = add_inlined(unit, function, &mut found);
    found
}

fn add_inlined(unit: UnitRef<'_, Reader>, function: UnitOffset, found: &mut Vec<Inlined>) -> Result<(), Error> {
    let mut entries = unit.entries_raw(Some(function))?;
    let own = entries.next_depth();
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(()) };
    entries.skip_attributes(abbreviation.attributes())?;
    // The depths of the calls around an entry, and of the function declared within this one that it belongs to.
    let (mut around, mut nested) = (Vec::new(), None);
    while !entries.is_empty() && entries.next_depth() > own {
        let (depth, at) = (entries.next_depth(), entries.next_offset());
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        while around.pop_if(|outer| *outer >= depth).is_some() {}
        nested = nested.filter(|nested| depth > *nested);
        if nested.is_none() && abbreviation.tag() == dw::DW_TAG_inlined_subroutine {
            let mut extent = Extent::default();
            for attribute in abbreviation.attributes() {
                extent.take(unit, &entries.read_attribute(*attribute)?)?;
            }
            let calls = around.len();
            extent.each(unit, |Range { begin, end }| found.push(Inlined { begin, end, at, depth: calls }))?;
            around.push(depth);
        } else {
            if nested.is_none() && abbreviation.tag() == dw::DW_TAG_subprogram {
                nested = Some(depth);
            }
            entries.skip_attributes(abbreviation.attributes())?;
        }
    }
    Ok(())
}

/// How to pass over an entry.
#[derive(Debug)]
enum Kind {
    /// It is to be read.
    Function,
    Fixed(usize),
    Parts(Box<[Skip]>),
    /// It has values that are unknown here.
    Strange,
}

impl Kind {
    fn new(abbreviation: &Abbreviation, encoding: Encoding) -> Kind {
        let has = |name| abbreviation.attributes().iter().any(|attribute| attribute.name() == name);
        if abbreviation.tag() == dw::DW_TAG_subprogram && (has(dw::DW_AT_low_pc) || has(dw::DW_AT_ranges)) {
            return Kind::Function;
        }
        let of = |attribute: &AttributeSpecification| Skip::of(attribute.form(), encoding);
        let Some(all) = abbreviation.attributes().iter().map(of).collect::<Option<Vec<Skip>>>() else {
            return Kind::Strange;
        };
        let mut parts = Vec::new();
        for part in all {
            match (parts.last_mut(), part) {
                (Some(Skip::Bytes(before)), Skip::Bytes(more)) => *before += more,
                _ => parts.push(part),
            }
        }
        match parts[..] {
            [] => Kind::Fixed(0),
            [Skip::Bytes(length)] => Kind::Fixed(length),
            _ => Kind::Parts(parts.into()),
        }
    }
}

/// How to pass over a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Skip {
    Bytes(usize),
    Leb,
    /// A block behind its length, which takes so many bytes.
    Block(usize),
    LebBlock,
    /// Up to a zero byte.
    Text,
}

impl Skip {
    /// `None` for a form that is unknown here.
    pub(super) fn of(form: DwForm, encoding: Encoding) -> Option<Skip> {
        let word = usize::from(encoding.format.word_size());
        let address = usize::from(encoding.address_size);
        Some(match form {
            dw::DW_FORM_implicit_const | dw::DW_FORM_flag_present => Skip::Bytes(0),
            dw::DW_FORM_data1 | dw::DW_FORM_flag | dw::DW_FORM_ref1 | dw::DW_FORM_strx1 | dw::DW_FORM_addrx1 => {
                Skip::Bytes(1)
            }
            dw::DW_FORM_data2 | dw::DW_FORM_ref2 | dw::DW_FORM_strx2 | dw::DW_FORM_addrx2 => Skip::Bytes(2),
            dw::DW_FORM_strx3 | dw::DW_FORM_addrx3 => Skip::Bytes(3),
            dw::DW_FORM_data4 | dw::DW_FORM_ref4 | dw::DW_FORM_ref_sup4 | dw::DW_FORM_strx4 | dw::DW_FORM_addrx4 => {
                Skip::Bytes(4)
            }
            dw::DW_FORM_data8 | dw::DW_FORM_ref8 | dw::DW_FORM_ref_sig8 | dw::DW_FORM_ref_sup8 => Skip::Bytes(8),
            dw::DW_FORM_data16 => Skip::Bytes(16),
            dw::DW_FORM_addr => Skip::Bytes(address),
            dw::DW_FORM_ref_addr if encoding.version == 2 => Skip::Bytes(address),
            dw::DW_FORM_ref_addr
            | dw::DW_FORM_sec_offset
            | dw::DW_FORM_strp
            | dw::DW_FORM_strp_sup
            | dw::DW_FORM_line_strp
            | dw::DW_FORM_GNU_ref_alt
            | dw::DW_FORM_GNU_strp_alt => Skip::Bytes(word),
            dw::DW_FORM_udata
            | dw::DW_FORM_sdata
            | dw::DW_FORM_ref_udata
            | dw::DW_FORM_strx
            | dw::DW_FORM_addrx
            | dw::DW_FORM_loclistx
            | dw::DW_FORM_rnglistx
            | dw::DW_FORM_GNU_addr_index
            | dw::DW_FORM_GNU_str_index => Skip::Leb,
            dw::DW_FORM_block1 => Skip::Block(1),
            dw::DW_FORM_block2 => Skip::Block(2),
            dw::DW_FORM_block4 => Skip::Block(4),
            dw::DW_FORM_block | dw::DW_FORM_exprloc => Skip::LebBlock,
            dw::DW_FORM_string => Skip::Text,
            _ => return None,
        })
    }

    #[inline]
    pub(super) fn skip(self, bytes: &mut Cursor<'_>) -> Option<()> {
        match self {
            Skip::Bytes(count) => bytes.skip(count),
            Skip::Leb => bytes.skip_leb(),
            Skip::Block(size) => {
                let length = bytes.uint(size)?;
                bytes.skip(usize::try_from(length).ok()?)
            }
            Skip::LebBlock => {
                let length = bytes.uleb()?;
                bytes.skip(usize::try_from(length).ok()?)
            }
            Skip::Text => {
                while bytes.u8()? != 0 {}
                Some(())
            }
        }
    }
}
