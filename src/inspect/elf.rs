//! One ELF file: its function symbols, its debug sections, its identity.
//!
//! Purpose: answer, from the file's bytes alone, what lies at an address stated in the file.
//!
//! Invariants:
//! - Everything but [`ElfFile::section`] works without `malloc`; that one allocates for a compressed section, which is
//!   then kept for ever.
//! - No byte of a file is trusted: what is out of bounds is absent.
//!
//! It must not know: where files come from, which of them are loaded.
#![forbid(unsafe_code)]

use object::elf;
use object::read::StringTable;
use object::read::elf::{
    CompressionHeader as _, FileHeader, ProgramHeader as _, SectionHeader as _, SectionTable, Sym,
};
use object::{Bytes, NativeEndian};

use super::modules::BuildId;
use crate::sys::kept;

#[cfg(target_pointer_width = "32")]
type Header = elf::FileHeader32<NativeEndian>;
#[cfg(target_pointer_width = "64")]
type Header = elf::FileHeader64<NativeEndian>;

/// A file in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct ElfFile<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    sections: SectionTable<'a, Header>,
}

impl<'a> ElfFile<'a> {
    /// `None` if this is no ELF file of this machine's word size and byte order.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<ElfFile<'a>> {
        let header = Header::parse(bytes).ok()?;
        if header.is_little_endian() != cfg!(target_endian = "little") {
            return None;
        }
        let sections = header.sections(NativeEndian, bytes).ok()?;
        Some(ElfFile { bytes, header, sections })
    }

    /// The lowest address and the size of all that is loaded of it, as stated in the file.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        let headers = self.header.program_headers(NativeEndian, self.bytes).ok()?;
        let loads = || headers.iter().filter(|header| header.p_type(NativeEndian) == elf::PT_LOAD);
        let low = loads().map(|load| load.p_vaddr(NativeEndian)).min()?;
        let high = loads().filter_map(|l| l.p_vaddr(NativeEndian).checked_add(l.p_memsz(NativeEndian))).max()?;
        #[allow(clippy::useless_conversion, reason = "a word is smaller on 32-bit machines")]
        Some((u64::from(low), u64::from(high.checked_sub(low)?)))
    }

    /// Tells one build of it from another; empty if the linker wrote none.
    pub(super) fn build_id(&self) -> BuildId {
        for section in self.sections.iter() {
            if let Ok(Some(mut notes)) = section.notes(NativeEndian, self.bytes) {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == elf::ELF_NOTE_GNU && note.n_type(NativeEndian) == elf::NT_GNU_BUILD_ID {
                        return BuildId::new(note.desc());
                    }
                }
            }
        }
        BuildId::default()
    }

    /// The name of the separate debug file, as the linker or `objcopy` noted it.
    pub(super) fn debug_link(&self) -> Option<&'a [u8]> {
        let (_, section) = self.sections.section_by_name(NativeEndian, b".gnu_debuglink")?;
        let bytes = section.data(NativeEndian, self.bytes).ok()?;
        bytes.split(|&byte| byte == 0).next().filter(|name| !name.is_empty() && !name.contains(&b'/'))
    }

    /// Whether it has lines.
    pub(super) fn has_lines(&self) -> bool {
        self.sections.section_by_name(NativeEndian, b".debug_line").is_some()
    }

    /// Whether it has the names of all its functions, not only of those that others call.
    pub(super) fn has_symbols(&self) -> bool {
        self.sections.iter().any(|section| section.sh_type(NativeEndian) == elf::SHT_SYMTAB)
    }
}

impl ElfFile<'static> {
    /// The bytes of a debug section, empty if there is none or if it is compressed in a way that is not known here.
    pub(super) fn section(&self, name: &str) -> &'static [u8] {
        self.section_bytes(name).unwrap_or(&[])
    }

    fn section_bytes(&self, name: &str) -> Option<&'static [u8]> {
        let (_, section) = self.sections.section_by_name(NativeEndian, name.as_bytes())?;
        let mut data = Bytes(section.data(NativeEndian, self.bytes).ok()?);
        if !section.sh_flags(NativeEndian).contains(elf::SHF_COMPRESSED) {
            return Some(data.0);
        }
        let header = data.read::<<Header as FileHeader>::CompressionHeader>().ok()?;
        if header.ch_type(NativeEndian) != elf::ELFCOMPRESS_ZLIB {
            return None;
        }
        inflate(data.0, usize::try_from(header.ch_size(NativeEndian)).ok()?)
    }

    /// Its functions, from `.symtab` or, where that was stripped, from `.dynsym`; `None` if it has neither.
    pub(super) fn functions(&self) -> Option<Functions> {
        [elf::SHT_SYMTAB, elf::SHT_DYNSYM].into_iter().find_map(|kind| self.functions_of(kind))
    }

    fn functions_of(&self, kind: elf::SectionType) -> Option<Functions> {
        let symbols = self.sections.symbols(NativeEndian, self.bytes, kind).ok()?;
        let low = self.span().map_or(0, |(low, _)| low);
        let functions = || {
            symbols.iter().filter_map(|symbol| {
                let is_code = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC);
                if !is_code || symbol.st_shndx(NativeEndian) == elf::SHN_UNDEF {
                    return None;
                }
                #[allow(clippy::useless_conversion, reason = "a word is smaller on 32-bit machines")]
                let (at, len) = (u64::from(symbol.st_value(NativeEndian)), u64::from(symbol.st_size(NativeEndian)));
                let start = u32::try_from(at.checked_sub(low)?).ok()?;
                Some(Function {
                    start,
                    len: u32::try_from(len).unwrap_or(u32::MAX),
                    name: symbol.st_name(NativeEndian),
                })
            })
        };
        let count = functions().count();
        if count == 0 {
            return None;
        }
        let table = kept::table(count, Function { start: 0, len: 0, name: 0 })?;
        for (to, function) in table.iter_mut().zip(functions()) {
            *to = function;
        }
        table.sort_unstable_by_key(|function| (function.start, function.len, function.name));
        Some(Functions { table, low, strings: symbols.strings() })
    }
}

/// Relative to the lowest loaded address of its file.
#[derive(Debug, Clone, Copy)]
struct Function {
    start: u32,
    len: u32,
    name: u32,
}

/// The functions of one file, sorted by address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Functions {
    table: &'static [Function],
    low: u64,
    strings: StringTable<'static>,
}

/// How many functions before the one that begins last are looked at: they may be longer and lie around it.
const ENCLOSING: usize = 4;

impl Functions {
    /// The name, as the linker knows it, of the function around an address stated in the file, and the offset in it.
    pub(super) fn at(&self, stated: u64) -> Option<(&'static [u8], usize)> {
        let address = u32::try_from(stated.checked_sub(self.low)?).ok()?;
        let after = self.table.partition_point(|function| function.start <= address);
        let next = self.table.get(after).map_or(u32::MAX, |function| function.start);
        let found = self.table[..after].iter().rev().take(ENCLOSING).find(|function| {
            // Functions in assembly often state no size; they reach to whatever comes next.
            let end = if function.len == 0 { next } else { function.start.saturating_add(function.len) };
            address < end
        })?;
        let name = self.strings.get(found.name).ok().filter(|name| !name.is_empty())?;
        Some((name, (address - found.start) as usize))
    }
}

fn inflate(input: &[u8], size: usize) -> Option<&'static [u8]> {
    use miniz_oxide::inflate::TINFLStatus;
    use miniz_oxide::inflate::core::inflate_flags::{
        TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    };
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

    /// More than any debug section has; a size that was made up must not take the machine's memory.
    const MOST: usize = 1 << 30;
    /// Nor more than deflate can make of the input.
    const MOST_FROM_A_BYTE: usize = 1032;
    if size > MOST || size / MOST_FROM_A_BYTE > input.len() {
        return None;
    }
    let out = kept::table(size, 0u8)?;
    let flags = TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) = decompress(&mut DecompressorOxide::new(), input, out, 0, flags);
    (status == TINFLStatus::Done && read == input.len() && written == size).then_some(&*out)
}
