//! The code images loaded into this process and where their unwind tables lie.
//!
//! Purpose: answer "is this address code, in which module, at which offset", and hand the unwinder
//! each module's `.eh_frame_hdr` and `.eh_frame` as plain bytes.
//!
//! Invariants:
//! - Nothing allocates, frees or takes another lock while the loader's lock is held. The first pass
//!   collects sizes into memory reserved beforehand, the buffers are then made without the lock, and
//!   a second pass copies, provided that nothing was loaded or unloaded in between.
//! - Only the main program's tables are borrowed, because it alone can never be unloaded. Every
//!   other module's tables are copies, so that a `dlclose` cannot pull them from under a walk.
//!
//! It must not know: stacks, tasks, symbols, how to unwind.
//!
//! `dl_iterate_phdr` waits for the loader's lock, so loading waits for a thread that stands still in
//! a `dl_iterate_phdr` callback or in a library's constructor. Walking a stack never loads.

// Mach-O's images are found by the platform's own libraries so far: where there are no ELF files, parts of this have no reader.
#![cfg_attr(target_vendor = "apple", allow(dead_code))]

use super::leaving::Leaving;
use std::ffi::CString;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a loaded image. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) enum ImageBytes {
    /// Borrowed from the main program.
    Main(&'static [u8]),
    /// Copied from an image that may be unloaded.
    Copied(Arc<Vec<u8>>),
}

impl Default for ImageBytes {
    fn default() -> ImageBytes {
        ImageBytes::Main(&[])
    }
}

impl std::ops::Deref for ImageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            ImageBytes::Main(bytes) => bytes,
            ImageBytes::Copied(bytes) => bytes,
        }
    }
}

/// Unwind tables of one image. Addresses are as stated in the file ("svma"), before the load bias.
#[derive(Debug, Clone)]
pub(crate) struct UnwindTables {
    pub(crate) hdr_svma: Range<u64>,
    pub(crate) hdr: ImageBytes,
    pub(crate) eh_frame_svma: Range<u64>,
    pub(crate) eh_frame: ImageBytes,
}

/// What the linker wrote into an image to tell one build from another; mostly 20 bytes, empty if it wrote nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BuildId {
    bytes: [u8; BuildId::LONGEST],
    len: u8,
}

impl BuildId {
    const LONGEST: usize = 32;

    /// One that is too long to keep counts as none.
    pub(crate) fn new(bytes: &[u8]) -> BuildId {
        let mut id = BuildId::default();
        if let Some(to) = id.bytes.get_mut(..bytes.len()) {
            to.copy_from_slice(bytes);
            id.len = bytes.len() as u8;
        }
        id
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

/// In hexadecimal digits.
impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// One loaded image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Path as the loader knows it; the main program's path comes from the operating system.
    pub(crate) path: String,
    /// The same, byte for byte, to open the file by; empty for the main program.
    pub(crate) file: CString,
    pub(crate) build_id: BuildId,
    /// What to add to an address stated in the file to get the address in this process.
    pub(crate) bias: usize,
    /// From the lowest to the highest loaded segment, in this process.
    pub(crate) span: Range<usize>,
    pub(crate) tables: Option<UnwindTables>,
    /// What the symbolizer read of its file, once it did.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) known: std::sync::OnceLock<&'static super::elf_files::Known>,
}

impl Image {
    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

#[derive(Debug, Clone, Copy)]
struct Code {
    start: usize,
    end: usize,
    image: u32,
}

/// A function of one image, by where its unwind table's entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(dead_code, reason = "made where there are ELF tables")
)]
pub(crate) struct Function {
    image: u32,
    entry: u64,
}

/// All images at one moment. Immutable: a change of the set makes a new map.
#[derive(Debug, Default)]
pub(crate) struct ModuleMap {
    pub(crate) images: Vec<Image>,
    /// Executable segments, sorted, not overlapping.
    code: Vec<Code>,
    /// What of them a walk does not go beyond.
    pub(super) leaving: Leaving,
    /// The loader's counters of images ever loaded and unloaded.
    version: (u64, u64),
}

impl ModuleMap {
    /// Reads the loader's list. Empty on targets without `dl_iterate_phdr`.
    pub(crate) fn load() -> ModuleMap {
        let mut map = platform::load();
        map.leaving = Leaving::find(&map);
        map
    }

    /// Whether images were loaded or unloaded since this map was made.
    pub(crate) fn is_current(&self) -> bool {
        platform::version() == self.version
    }

    /// The executable segment around `address`. Where the platform gives no list of images,
    /// everything above the first page passes, because nothing better is known.
    pub(crate) fn code_at(&self, address: usize) -> Option<Range<usize>> {
        if !platform::HAS_IMAGES {
            return (address >= 4096).then_some(4096..usize::MAX);
        }
        let code = self.find(address)?;
        Some(code.start..code.end)
    }

    /// The image whose code holds `address`, and the address as stated in its file.
    pub(crate) fn locate(&self, address: usize) -> Option<(&Image, usize)> {
        let image = &self.images[self.find(address)?.image as usize];
        Some((image, address.wrapping_sub(image.bias)))
    }

    /// The function that holds `address`, by its entry in the unwind tables; one without an entry is taken for the one before it.
    /// Neither allocates nor takes a lock.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn function_at(&self, address: usize) -> Option<Function> {
        let image = self.find(address)?.image;
        let Image { bias, tables, .. } = &self.images[image as usize];
        let UnwindTables { hdr_svma, hdr, eh_frame_svma, .. } = tables.as_ref()?;
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(hdr_svma.start).set_eh_frame(eh_frame_svma.start);
        let hdr = gimli::EhFrameHdr::new(hdr, gimli::NativeEndian).parse(&bases, size_of::<usize>() as u8).ok()?;
        match hdr.table()?.lookup(address.wrapping_sub(*bias) as u64, &bases).ok()? {
            gimli::Pointer::Direct(entry) => Some(Function { image, entry }),
            gimli::Pointer::Indirect(_) => None,
        }
    }

    /// Nobody asks there.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn function_at(&self, _address: usize) -> Option<Function> {
        None
    }

    fn find(&self, address: usize) -> Option<&Code> {
        let after = self.code.partition_point(|code| code.start <= address);
        let code = &self.code[after.checked_sub(1)?];
        (address < code.end).then_some(code)
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod platform {
    use super::*;
    use std::ffi::{CStr, c_int, c_void};

    pub(super) const HAS_IMAGES: bool = true;

    /// More executable segments than any linker produces; further ones are ignored.
    const MAX_CODE: usize = 8;
    /// Segment flags of the ELF specification; libc lacks them on FreeBSD.
    const PF_X: u32 = 1;
    const PF_R: u32 = 4;
    /// `.eh_frame_hdr` states the address of `.eh_frame` as a signed 32-bit offset from the field.
    const DW_EH_PE_PCREL_SDATA4: u8 = 0x1b;
    const HDR_POINTER_OFFSET: usize = 4;

    #[cfg(target_pointer_width = "64")]
    type Phdr = libc::Elf64_Phdr;
    #[cfg(target_pointer_width = "32")]
    type Phdr = libc::Elf32_Phdr;

    /// What the first pass notes of an image: addresses in this process, and sizes.
    #[derive(Clone, Copy, Default)]
    struct Facts {
        bias: usize,
        name: Area,
        span: Area,
        build_id: BuildId,
        hdr: Area,
        eh_frame: Area,
        code: [Area; MAX_CODE],
        code_count: usize,
    }

    #[derive(Clone, Copy, Default, PartialEq)]
    struct Area {
        start: usize,
        len: usize,
    }

    impl Area {
        fn end(self) -> usize {
            self.start.wrapping_add(self.len)
        }

        /// # Safety
        /// The area lies in an image that stays loaded for `'a`.
        unsafe fn bytes<'a>(self) -> &'a [u8] {
            if self.len == 0 {
                return &[];
            }
            // SAFETY: the caller vouches for the image; areas are cut from readable `PT_LOAD`
            // segments by `facts_of`, which nobody writes after relocation.
            unsafe { std::slice::from_raw_parts(self.start as *const u8, self.len) }
        }
    }

    /// Space for one image's copies, made outside the loader's lock.
    struct Copies {
        name: Vec<u8>,
        hdr: Vec<u8>,
        eh_frame: Vec<u8>,
    }

    struct Pass<'a> {
        facts: &'a mut Vec<Facts>,
        copies: Option<&'a mut [Copies]>,
        seen: usize,
        version: (u64, u64),
        /// Set when the second pass finds another set of images than the first.
        changed: bool,
    }

    fn iterate(
        callback: unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int,
        data: *mut c_void,
    ) {
        if cfg!(miri) {
            return; // an interpreted program has no images
        }
        // SAFETY: the callbacks below only read the image described by `info` and write through
        // `data`, which their callers keep alive and exclusively borrowed during this call.
        unsafe { libc::dl_iterate_phdr(Some(callback), data) };
    }

    pub(super) fn version() -> (u64, u64) {
        unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
            // SAFETY: `info` is the loader's and valid during the callback; `data` is `version`'s
            // local variable, see below.
            unsafe { *data.cast::<(u64, u64)>() = counters(&*info) };
            1
        }
        let mut version = (0, 0);
        iterate(first, (&raw mut version).cast());
        version
    }

    fn counters(info: &libc::dl_phdr_info) -> (u64, u64) {
        (info.dlpi_adds as _, info.dlpi_subs as _)
    }

    pub(super) fn load() -> ModuleMap {
        let mut facts = Vec::new();
        let mut capacity = 64;
        // A process that loads libraries without pause gets, after some attempts, an empty map rather
        // than an endless loop here; its version is never current, so the next refresh tries again.
        for _ in 0..16 {
            facts.clear();
            facts.reserve(capacity);
            let mut pass = Pass { facts: &mut facts, copies: None, seen: 0, version: (0, 0), changed: false };
            iterate(note, (&raw mut pass).cast());
            let (seen, version) = (pass.seen, pass.version);
            if seen > facts.len() {
                capacity = seen + 16;
                continue;
            }
            let mut copies: Vec<Copies> = facts.iter().enumerate().map(space_for).collect();
            let mut pass = Pass { facts: &mut facts, copies: Some(&mut copies), seen: 0, version, changed: false };
            iterate(copy, (&raw mut pass).cast());
            if !pass.changed && pass.seen == seen {
                return assemble(&facts, copies, version);
            }
        }
        ModuleMap::default()
    }

    fn space_for((index, facts): (usize, &Facts)) -> Copies {
        let is_main = index == 0;
        let room = |area: Area| Vec::with_capacity(if is_main { 0 } else { area.len });
        Copies { name: Vec::with_capacity(facts.name.len), hdr: room(facts.hdr), eh_frame: room(facts.eh_frame) }
    }

    /// First pass: sizes and addresses only, into reserved space.
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: `load` passes its exclusively borrowed `Pass`; `info` is valid in the callback.
        let (pass, info) = unsafe { (&mut *data.cast::<Pass<'_>>(), &*info) };
        pass.version = counters(info);
        pass.seen += 1;
        if pass.facts.len() < pass.facts.capacity() {
            // SAFETY: the loader holds its lock, the image stays mapped during the callback.
            pass.facts.push(unsafe { facts_of(info) });
        }
        0
    }

    /// Second pass: copies bytes, if the set of images is still that of the first.
    unsafe extern "C" fn copy(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: as in `note`.
        let (pass, info) = unsafe { (&mut *data.cast::<Pass<'_>>(), &*info) };
        let index = pass.seen;
        pass.seen += 1;
        let Some(facts) = pass.facts.get(index) else {
            pass.changed = true;
            return 1;
        };
        if counters(info) != pass.version || info.dlpi_addr as usize != facts.bias {
            pass.changed = true;
            return 1;
        }
        if let Some(copies) = &mut pass.copies {
            let copies = &mut copies[index];
            for (area, to) in
                [(facts.name, &mut copies.name), (facts.hdr, &mut copies.hdr), (facts.eh_frame, &mut copies.eh_frame)]
            {
                // Space was reserved in `space_for`, none of it for the main program's tables.
                if to.capacity() >= area.len {
                    // SAFETY: the counters did not move since `note` cut this area, so the same
                    // image is still mapped, and the loader's lock keeps it so.
                    to.extend_from_slice(unsafe { area.bytes() });
                }
            }
        }
        0
    }

    /// # Safety
    /// The image behind `info` stays mapped during the call.
    unsafe fn facts_of(info: &libc::dl_phdr_info) -> Facts {
        let bias = info.dlpi_addr as usize;
        let mut facts = Facts { bias, ..Facts::default() };
        if !info.dlpi_name.is_null() {
            // SAFETY: the loader's name is a C string that lives as long as the image.
            let name = unsafe { CStr::from_ptr(info.dlpi_name) };
            facts.name = Area { start: name.as_ptr() as usize, len: name.count_bytes() };
        }
        let headers: &[Phdr] = if info.dlpi_phdr.is_null() {
            &[]
        } else {
            // SAFETY: the loader states the table and its length.
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize) }
        };
        let area =
            |header: &Phdr| Area { start: bias.wrapping_add(header.p_vaddr as usize), len: header.p_memsz as usize };
        let loads = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        // Only bytes that come from the file: the rest of a segment is zeroed data.
        let readable_to = |address: usize| {
            loads()
                .filter(|header| header.p_flags & PF_R != 0)
                .map(|header| Area { len: header.p_filesz as usize, ..area(header) })
                .find(|load| load.start <= address && address < load.end())
                .map(Area::end)
        };

        let (mut low, mut high) = (usize::MAX, 0);
        for header in loads() {
            let load = area(header);
            low = low.min(load.start);
            high = high.max(load.end());
            if header.p_flags & PF_X != 0 && facts.code_count < MAX_CODE {
                facts.code[facts.code_count] = load;
                facts.code_count += 1;
            }
        }
        if low < high {
            facts.span = Area { start: low, len: high - low };
        }

        for header in headers.iter().filter(|header| header.p_type == libc::PT_NOTE) {
            let notes = area(header);
            if facts.build_id.is_empty() && readable_to(notes.start).is_some_and(|end| notes.end() <= end) {
                // SAFETY: the notes lie in a readable segment of the image, which the caller keeps.
                facts.build_id = build_id_in(unsafe { notes.bytes() });
            }
        }

        if let Some(header) = headers.iter().find(|h| h.p_type == libc::PT_GNU_EH_FRAME) {
            let hdr = area(header);
            let fits = readable_to(hdr.start).is_some_and(|end| hdr.end() <= end);
            if fits && hdr.len >= HDR_POINTER_OFFSET + 4 {
                // SAFETY: `hdr` lies in a readable segment of the image, which the caller keeps.
                let bytes = unsafe { hdr.bytes() };
                if let Some(start) = eh_frame_start(hdr.start, bytes)
                    && let Some(end) = readable_to(start)
                {
                    facts.hdr = hdr;
                    facts.eh_frame = Area { start, len: end - start };
                }
            }
        }
        facts
    }

    /// The notes of the ELF specification: sizes of name and contents, type, then both, each padded to four bytes.
    fn build_id_in(mut notes: &[u8]) -> BuildId {
        const NT_GNU_BUILD_ID: u32 = 3;
        let word = |at: usize, notes: &[u8]| -> Option<u32> {
            Some(u32::from_ne_bytes(notes.get(at..)?.get(..4)?.try_into().ok()?))
        };
        let mut next = || -> Option<Option<BuildId>> {
            let (name, contents, kind) = (word(0, notes)? as usize, word(4, notes)? as usize, word(8, notes)?);
            let at = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
            let found = kind == NT_GNU_BUILD_ID && notes.get(12..)?.get(..name)? == b"GNU\0";
            let id = found.then(|| notes.get(at..)?.get(..contents)).flatten().map(BuildId::new);
            notes = notes.get(at.checked_add(contents.checked_next_multiple_of(4)?)?..)?;
            Some(id)
        };
        loop {
            match next() {
                Some(None) => {}
                Some(Some(id)) => return id,
                None => return BuildId::default(),
            }
        }
    }

    fn eh_frame_start(hdr_address: usize, hdr: &[u8]) -> Option<usize> {
        if hdr[0] != 1 || hdr[1] != DW_EH_PE_PCREL_SDATA4 {
            return None;
        }
        let field = hdr[HDR_POINTER_OFFSET..][..4].try_into().ok()?;
        let offset = i32::from_ne_bytes(field) as isize;
        Some((hdr_address + HDR_POINTER_OFFSET).wrapping_add_signed(offset))
    }

    fn assemble(facts: &[Facts], copies: Vec<Copies>, version: (u64, u64)) -> ModuleMap {
        let mut map = ModuleMap { version, ..ModuleMap::default() };
        for (index, (facts, copies)) in facts.iter().zip(copies).enumerate() {
            let stated = |area: Area| {
                let start = area.start.wrapping_sub(facts.bias) as u64;
                start..start + area.len as u64
            };
            let bytes = |area: Area, copy: Vec<u8>| -> ImageBytes {
                if index == 0 {
                    // SAFETY: the loader lists the main program first and it is never unloaded.
                    ImageBytes::Main(unsafe { area.bytes() })
                } else {
                    ImageBytes::Copied(Arc::new(copy))
                }
            };
            for code in &facts.code[..facts.code_count] {
                map.code.push(Code { start: code.start, end: code.end(), image: index as u32 });
            }
            map.images.push(Image {
                path: image_path(index, &copies.name),
                file: if index == 0 { CString::default() } else { CString::new(copies.name).unwrap_or_default() },
                build_id: facts.build_id,
                bias: facts.bias,
                span: facts.span.start..facts.span.end(),
                tables: (facts.eh_frame.len > 0).then(|| UnwindTables {
                    hdr_svma: stated(facts.hdr),
                    hdr: bytes(facts.hdr, copies.hdr),
                    eh_frame_svma: stated(facts.eh_frame),
                    eh_frame: bytes(facts.eh_frame, copies.eh_frame),
                }),
                #[cfg(any(target_os = "linux", target_os = "android"))]
                known: std::sync::OnceLock::new(),
            });
        }
        map.code.sort_by_key(|code| code.start);
        map
    }

    fn image_path(index: usize, name: &[u8]) -> String {
        if index == 0 && name.is_empty() {
            let path = std::env::current_exe().ok();
            return path.map_or_else(|| "main".into(), |path| path.to_string_lossy().into());
        }
        String::from_utf8_lossy(name).into_owned()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
mod platform {
    use super::*;

    pub(super) const HAS_IMAGES: bool = false;

    pub(super) fn version() -> (u64, u64) {
        (0, 0)
    }

    pub(super) fn load() -> ModuleMap {
        ModuleMap::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn finds_the_main_program_and_libc() {
        let map = ModuleMap::load();
        let own = finds_the_main_program_and_libc as *const () as usize;
        let (image, stated) = map.locate(own).expect("own code is in a known image");
        assert_eq!(image.bias + stated, own);
        assert!(std::path::Path::new(&image.path).exists(), "{}", image.path);
        assert!(matches!(image.tables.as_ref().unwrap().eh_frame, ImageBytes::Main(_)));
        let (libc, _) = map.locate(libc::getpid as *const () as usize).expect("libc is known");
        let tables = libc.tables.as_ref().expect("libc has unwind tables");
        assert!(matches!(tables.eh_frame, ImageBytes::Copied(_)));
        assert!(tables.eh_frame.len() > 1000);
        assert!(map.is_current());
    }

    #[test]
    fn data_and_the_stack_are_not_code() {
        static DATA: u8 = 1;
        let map = ModuleMap::load();
        let local = 0u8;
        assert_eq!(map.code_at(&raw const DATA as usize), None);
        assert_eq!(map.code_at(&raw const local as usize), None);
        assert_eq!(map.code_at(0), None);
        assert_eq!(map.code_at(usize::MAX), None);
    }

    #[test]
    fn code_ranges_are_sorted_and_disjoint() {
        let map = ModuleMap::load();
        assert!(map.code.len() >= 2);
        for pair in map.code.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{pair:?}");
        }
    }
}
