//! Which file belongs to which loaded image.
//!
//! Purpose: open the executable, the libraries and their separate debug files, make sure that they are what was loaded,
//! and keep what was read of them for the rest of the process.
//!
//! Invariants:
//! - No `malloc`, no lock of the loader, no descriptor kept. The executable is mapped when the first runtime starts, so
//!   that it may be replaced or deleted afterwards; a library is opened when it is first needed, and its names stay.
//! - A file whose build id, or without one its size in memory, is not that of the loaded image is not used: after an
//!   upgrade another library lies at the path, and its names would be lies.
//! - Entries are never removed, so they can be borrowed for ever; there are at most [`MOST`].
//!
//! It must not know: what an address means, how a frame is printed.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::elf::{ElfFile, Functions};
use super::modules::{BuildId, Image};
use super::names::FixedBuf;
use crate::sys::kept::{self, Mapped};

/// Files that are kept. A process that loads and unloads ever new libraries sees `module+0xoffset` in further ones.
const MOST: usize = 512;
/// Longest path that is opened.
const LONGEST_PATH: usize = 1024;

/// What is known of the file of an image.
#[derive(Debug)]
pub(crate) struct Known {
    path: [u8; LONGEST_PATH],
    path_len: usize,
    build_id: BuildId,
    size: usize,
    /// The loaded file itself.
    own: ElfFile<'static>,
    /// Its separate debug file, if it needs one and there is one.
    debug: Option<ElfFile<'static>>,
    pub(super) functions: Option<Functions>,
}

impl Known {
    fn is_of(&self, image: &Image) -> bool {
        self.path[..self.path_len] == *image.file.as_bytes()
            && self.build_id == image.build_id
            && self.size == image.span.len()
    }

    /// The file with the debug sections, as far as there are any.
    pub(super) fn debug_file(&self) -> &ElfFile<'static> {
        self.debug.as_ref().unwrap_or(&self.own)
    }
}

static KNOWN: [OnceLock<&'static Known>; MOST] = [const { OnceLock::new() }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Set while a thread reads a file, so that no two read the same one.
static READING: AtomicBool = AtomicBool::new(false);

/// The main program's bytes; `None` inside if they could not be had.
static EXECUTABLE: OnceLock<Option<&'static [u8]>> = OnceLock::new();

/// Libraries that are kept from the start; each takes a mapping.
const MOST_LIBRARIES: usize = 16;

/// The files of the libraries that the program began with.
static LIBRARIES: OnceLock<Vec<(CString, &'static [u8])>> = OnceLock::new();

/// Set when a file could not be opened because no descriptor was free.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether a file could not be opened for want of a descriptor.
pub(super) fn was_refused() -> bool {
    REFUSED.load(Ordering::Relaxed)
}

/// That it can be tried again.
pub(super) fn take_refused() -> bool {
    REFUSED.swap(false, Ordering::Relaxed)
}

/// Maps the files of the program and of its first libraries, once, some microseconds each: they may be replaced or deleted
/// later, or no descriptor be free. Their pages are read when they are needed.
pub(crate) fn keep_files(images: &[Image]) {
    keep_executable();
    LIBRARIES.get_or_init(|| {
        let libraries = images.iter().filter(|image| has_file(&image.file)).take(MOST_LIBRARIES);
        libraries.filter_map(|image| Some((image.file.clone(), Mapped::open(&image.file).ok()?.keep()))).collect()
    });
}

/// What has no directory is no file but something of the kernel's, such as `linux-vdso.so.1`.
fn has_file(path: &CStr) -> bool {
    path.to_bytes().contains(&b'/')
}

/// Maps the executable file; some microseconds, once. Its pages are read when they are needed.
fn keep_executable() {
    EXECUTABLE.get_or_init(|| Mapped::open(c"/proc/self/exe").ok().map(Mapped::keep));
}

/// The file of an image, opened if nobody did before; `None` if it cannot be had.
pub(super) fn known(image: &Image) -> Option<&'static Known> {
    if let Some(known) = image.known.get() {
        return Some(known);
    }
    // Whoever is in there may be stopped: after a while the file is read twice rather than not at all.
    let deadline = Instant::now() + Duration::from_millis(20);
    let mine = loop {
        let mine = READING.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if mine || Instant::now() >= deadline {
            break mine;
        }
        std::thread::yield_now();
    };
    let found = find(image).or_else(|| read(image).and_then(add));
    if mine {
        READING.store(false, Ordering::Release);
    }
    if let Some(found) = found {
        let _ = image.known.set(found);
    }
    found
}

fn find(image: &Image) -> Option<&'static Known> {
    let entries = KNOWN.iter().take(COUNT.load(Ordering::Acquire));
    entries.filter_map(|entry| entry.get().copied()).find(|known| known.is_of(image))
}

fn add(known: Known) -> Option<&'static Known> {
    let known = kept::value(known)?;
    let at = COUNT.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MOST).then_some(n + 1)).ok()?;
    let _ = KNOWN[at].set(known);
    Some(known)
}

fn read(image: &Image) -> Option<Known> {
    if COUNT.load(Ordering::Acquire) >= MOST {
        return None;
    }
    let path = image.file.as_bytes();
    let mut own_path = [0; LONGEST_PATH];
    own_path.get_mut(..path.len())?.copy_from_slice(path);
    let own = if path.is_empty() {
        keep_executable();
        let own = ElfFile::parse((*EXECUTABLE.get()?)?)?;
        is_same(&own, image).then_some(own)?
    } else {
        matching(&image.file, image)?
    };
    let mut functions = None;
    let mut debug = None;
    if !own.has_lines() || !own.has_symbols() {
        debug = debug_file(&own, image);
        functions = debug.filter(|_| !own.has_symbols()).and_then(|debug| debug.functions());
        debug = debug.filter(|debug| !own.has_lines() && debug.has_lines());
    }
    Some(Known {
        path: own_path,
        path_len: path.len(),
        build_id: image.build_id,
        size: image.span.len(),
        own,
        debug,
        functions: functions.or_else(|| own.functions()),
    })
}

fn is_same(file: &ElfFile<'_>, image: &Image) -> bool {
    if image.build_id.is_empty() {
        file.span().is_some_and(|(_, size)| size == image.span.len() as u64)
    } else {
        file.build_id() == image.build_id
    }
}

/// The file at a path, if it is that of the image.
fn matching(path: &CStr, image: &Image) -> Option<ElfFile<'static>> {
    if !has_file(path) {
        return None;
    }
    let kept = LIBRARIES.get().into_iter().flatten().find(|(kept, _)| kept.as_c_str() == path);
    if let Some(file) = kept.and_then(|(_, bytes)| ElfFile::parse(bytes)).filter(|file| is_same(file, image)) {
        return Some(file);
    }
    let mapped = match Mapped::open(path) {
        Ok(mapped) => mapped,
        Err(error) => {
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                REFUSED.store(true, Ordering::Relaxed);
            }
            return None;
        }
    };
    is_same(&ElfFile::parse(mapped.bytes())?, image).then(|| ElfFile::parse(mapped.keep()))?
}

/// Where distributions put the debug files of what they ship; then next to the file, as `objcopy` users do.
fn debug_file(own: &ElfFile<'_>, image: &Image) -> Option<ElfFile<'static>> {
    let mut bytes = [0; 2 * LONGEST_PATH];
    let mut open = |write: &dyn Fn(&mut FixedBuf<'_>)| {
        let mut path = FixedBuf::new(&mut bytes);
        write(&mut path);
        path.push_str("\0");
        let path = CStr::from_bytes_with_nul(path.as_bytes()).ok()?;
        // A debug file is executed by nobody, so it may be written anew in its place at any time.
        is_same(&ElfFile::parse(Mapped::open(path).ok()?.bytes())?, image).then_some(())?;
        let copy = Mapped::read(path).ok()?;
        is_same(&ElfFile::parse(copy.bytes())?, image).then(|| ElfFile::parse(copy.keep()))?
    };
    if let [first, rest @ ..] = image.build_id.as_bytes() {
        let found = open(&|path| {
            let _ = write!(path, "/usr/lib/debug/.build-id/{first:02x}/");
            rest.iter().for_each(|byte| _ = write!(path, "{byte:02x}"));
            path.push_str(".debug");
        });
        if found.is_some() {
            return found;
        }
    }
    let link = std::str::from_utf8(own.debug_link()?).ok()?;
    let folder = image.path.rsplit_once('/')?.0;
    ["", "/.debug"]
        .into_iter()
        .find_map(|below| open(&|path| _ = write!(path, "{folder}{below}/{link}")))
        .or_else(|| open(&|path| _ = write!(path, "/usr/lib/debug{folder}/{link}")))
}
