//! [`File`].
//!
//! Invariants: whatever a job uses it owns: a handle of the file, and the bytes. Jobs that use the file's own place, or write, have
//! turns in a line, which clones share as they share the place: so a call after an abandoned one begins when that is over.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::lock::Locks;
use super::{FileTimes, Metadata, OpenOptions, Permissions};
use crate::blocking::{Line, call_in_turn, call_on_file, wait_for_turn};
use crate::observe::FileCall;
use crate::scheduler::io::spend;
use crate::scheduler::suspend::here;
use crate::sys::file::{Cached, read_cached};

/// Most that one read or write moves: enough to make the way to the pool small beside it, and no more than a worker copies in
/// some tens of microseconds.
const MOST: usize = 256 * 1024;

/// An open file; as [`std::fs::File`], but its calls park the task.
///
/// Closed when it is dropped, on the worker, as std does; while an abandoned call is under way, when that is over.
pub struct File {
    pub(super) inner: Arc<fs::File>,
    /// For the views.
    pub(super) name: Arc<str>,
    line: Arc<Line>,
    pub(super) locks: Arc<Locks>,
    /// Whether the kernel may be asked for what it has in memory.
    cached: AtomicBool,
}

impl File {
    pub(super) fn named(file: fs::File, name: Arc<str>) -> File {
        File { inner: Arc::new(file), name, line: Arc::default(), locks: Arc::default(), cached: AtomicBool::new(true) }
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// Of the system; those of [`blocking`](crate::blocking()).
    #[track_caller]
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file to write it, from nothing.
    ///
    /// # Errors
    /// Of the system; those of [`blocking`](crate::blocking()).
    #[track_caller]
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Makes a file, to read and write it.
    ///
    /// # Errors
    /// Also if it is there already.
    #[track_caller]
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// How a file is to be opened.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    #[track_caller]
    fn run<T: Send + 'static>(
        &self,
        call: FileCall,
        f: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if here().is_none() {
            return f(&self.inner);
        }
        let file = self.inner.clone();
        call_on_file(call, &self.name, move || f(&file))
    }

    /// As [`run`](File::run), for what uses the file's own place or writes.
    #[track_caller]
    fn run_in_turn<T: Send + 'static>(
        &self,
        call: FileCall,
        f: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if here().is_none() && self.line.is_idle() {
            return f(&self.inner);
        }
        let file = self.inner.clone();
        call_in_turn(call, &self.name, self.line.turn(), move || f(&file))
    }

    /// As [`run_in_turn`](File::run_in_turn), but nobody waits for it in turn: it must see what abandoned calls still write, and
    /// uses no place.
    #[track_caller]
    fn run_after<T: Send + 'static>(
        &self,
        call: FileCall,
        f: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if !self.line.is_idle() {
            wait_for_turn(call, &self.name, &self.line.turn())?;
        }
        self.run(call, f)
    }

    /// Waits until everything that was written is on the disk, with what is known of the file.
    ///
    /// # Errors
    /// Of the system: then what was written may be lost.
    #[track_caller]
    pub fn sync_all(&self) -> io::Result<()> {
        self.run_after(FileCall::Sync, |file| file.sync_all())
    }

    /// As [`sync_all`](File::sync_all), without what is not needed to read it again.
    ///
    /// # Errors
    /// Of the system: then what was written may be lost.
    #[track_caller]
    pub fn sync_data(&self) -> io::Result<()> {
        self.run_after(FileCall::Sync, |file| file.sync_data())
    }

    /// Cuts the file to that many bytes, or fills it up with zeros.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        // In turn, as an abandoned one must not cut off what was written since.
        self.run_in_turn(FileCall::Write, move |file| file.set_len(size))
    }

    /// What there is to know of it.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.run(FileCall::Metadata, |file| file.metadata())
    }

    /// Sets who may do what.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn set_permissions(&self, perm: Permissions) -> io::Result<()> {
        self.run(FileCall::Metadata, |file| file.set_permissions(perm))
    }

    /// Sets when it was read and written.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        self.run(FileCall::Metadata, move |file| file.set_times(times))
    }

    /// Sets when it was written.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(time))
    }

    /// Another handle with the same place in the file.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<File> {
        Ok(File {
            inner: Arc::new(self.inner.try_clone()?),
            name: self.name.clone(),
            line: self.line.clone(),
            locks: self.locks.clone(),
            cached: AtomicBool::new(self.cached.load(Ordering::Relaxed)),
        })
    }

    /// std's file. A lock that an abandoned [`lock`](File::lock) still waits for will be given back when it comes, whatever locks
    /// that one has by then.
    ///
    /// # Errors
    /// If an abandoned call is under way and there is no descriptor left for another handle.
    pub fn into_std(self) -> io::Result<fs::File> {
        Arc::try_unwrap(self.inner).or_else(|shared| shared.try_clone())
    }

    /// What the kernel has in memory; `None` if a thread has to read it.
    fn read_now(&self, buf: &mut [u8], offset: Option<u64>) -> io::Result<Option<usize>> {
        let Some(h) = here() else { return Ok(None) };
        // An abandoned read may still move the place.
        if !self.cached.load(Ordering::Relaxed) || offset.is_none() && !self.line.is_idle() {
            return Ok(None);
        }
        h.checkpoint_io()?;
        let most = buf.len().min(MOST);
        match read_cached(self.inner.as_raw_fd(), &mut buf[..most], offset) {
            Cached::Bytes(n) => {
                spend(&h);
                Ok(Some(n))
            }
            Cached::No => Ok(None),
            Cached::Never => {
                self.cached.store(false, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    #[track_caller]
    fn read_some(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || here().is_none() && self.line.is_idle() {
            return (&*self.inner).read(buf);
        }
        if let Some(n) = self.read_now(buf, None)? {
            return Ok(n);
        }
        let most = buf.len().min(MOST);
        let bytes = self.run_in_turn(FileCall::Read, move |mut file| filled(most, |bytes| file.read(bytes)))?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    #[track_caller]
    fn write_some(&self, bytes: Vec<u8>) -> io::Result<usize> {
        self.run_in_turn(FileCall::Write, move |mut file| retried(|| file.write(&bytes)))
    }

    /// The rest, from the file's place on.
    #[track_caller]
    fn rest(&self) -> io::Result<Vec<u8>> {
        self.run_in_turn(FileCall::Read, |mut file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| bytes)
        })
    }

    #[track_caller]
    fn seek_to(&self, to: SeekFrom) -> io::Result<u64> {
        // Only the end has to be asked for, which may take a journey to a server.
        if !matches!(to, SeekFrom::End(_)) && self.line.is_idle() {
            if let Some(h) = here() {
                h.checkpoint_io()?;
            }
            return (&*self.inner).seek(to);
        }
        self.run_in_turn(FileCall::Seek, move |mut file| file.seek(to))
    }
}

/// Reads into as many bytes, and gives those that came.
fn filled(most: usize, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let n = retried(|| read(&mut bytes))?;
    bytes.truncate(n);
    Ok(bytes)
}

fn retried(mut f: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match f() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Read for &File {
    #[track_caller]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_some(buf)
    }

    #[track_caller]
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match bufs.iter_mut().find(|b| !b.is_empty()) {
            Some(buf) => self.read_some(buf),
            None => Ok(0),
        }
    }

    #[track_caller]
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        if here().is_none() && self.line.is_idle() {
            return (&*self.inner).read_to_end(buf);
        }
        let rest = self.rest()?;
        let n = rest.len();
        if buf.is_empty() {
            *buf = rest;
        } else {
            buf.extend_from_slice(&rest);
        }
        Ok(n)
    }

    #[track_caller]
    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        if here().is_none() && self.line.is_idle() {
            return (&*self.inner).read_to_string(buf);
        }
        let rest = String::from_utf8(self.rest()?)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))?;
        buf.push_str(&rest);
        Ok(rest.len())
    }
}

impl Write for &File {
    #[track_caller]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if here().is_none() && self.line.is_idle() {
            return (&*self.inner).write(buf);
        }
        self.write_some(buf[..buf.len().min(MOST)].to_vec())
    }

    #[track_caller]
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if here().is_none() && self.line.is_idle() {
            return (&*self.inner).write_vectored(bufs);
        }
        let mut bytes = Vec::new();
        for buf in bufs {
            let room = MOST - bytes.len();
            bytes.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        self.write_some(bytes)
    }

    /// Nothing is kept back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    #[track_caller]
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.seek_to(pos)
    }
}

impl Read for File {
    #[track_caller]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
    #[track_caller]
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
    #[track_caller]
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }
    #[track_caller]
    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }
}

impl Write for File {
    #[track_caller]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }
    #[track_caller]
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    #[track_caller]
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.seek_to(pos)
    }
}

impl FileExt for File {
    #[track_caller]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if buf.is_empty() || here().is_none() {
            return self.inner.read_at(buf, offset);
        }
        if let Some(n) = self.read_now(buf, Some(offset))? {
            return Ok(n);
        }
        let most = buf.len().min(MOST);
        let bytes = self.run(FileCall::Read, move |file| filled(most, |bytes| file.read_at(bytes, offset)))?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    #[track_caller]
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        if here().is_none() && self.line.is_idle() {
            return self.inner.write_at(buf, offset);
        }
        let bytes = buf[..buf.len().min(MOST)].to_vec();
        // In turn, as an abandoned one must not come after what was written there since.
        self.run_in_turn(FileCall::Write, move |file| retried(|| file.write_at(&bytes, offset)))
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("fd", &self.inner.as_raw_fd()).field("path", &self.name).finish()
    }
}

impl From<fs::File> for File {
    /// A file that std has opened. Its path is not known to the views.
    fn from(file: fs::File) -> File {
        let name = format!("fd {}", file.as_raw_fd()).into();
        File::named(file, name)
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> File {
        fs::File::from(fd).into()
    }
}

impl From<File> for OwnedFd {
    /// # Panics
    /// If an abandoned call is under way and there is no descriptor left; see [`into_std`](File::into_std).
    fn from(file: File) -> OwnedFd {
        file.into_std().expect("a descriptor for another handle of a file that a thread is using").into()
    }
}

impl From<File> for Stdio {
    /// For a child process. Panics as the conversion to `OwnedFd`.
    fn from(file: File) -> Stdio {
        OwnedFd::from(file).into()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl IntoRawFd for File {
    /// Panics as the conversion to `OwnedFd`.
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::scheduler::Runtime;

    /// Who has the next turn finds the file cut: nothing that is written then is lost to a call that came before.
    #[test]
    fn a_cut_is_over_when_its_turn_is() {
        const PIECE: u64 = 1 << 20;
        let path = std::env::temp_dir().join(format!("coro-set-len-{}", std::process::id()));
        let std_file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (file, over) = (Arc::new(File::from(std_file)), AtomicBool::new(false));
        let runtime = Runtime::builder().workers(1).build().unwrap();
        std::thread::scope(|s| {
            // The system cuts no file while somebody writes into it: each cut takes some time.
            s.spawn(|| {
                let piece = vec![0; PIECE as usize];
                while !over.load(Ordering::SeqCst) {
                    file.inner.write_all_at(&piece, 0).unwrap();
                }
            });
            let lengths: Vec<_> =
                (1..=30).map(|more| (PIECE + more, cut_in_turn(&file, &runtime, PIECE + more))).collect();
            over.store(true, Ordering::SeqCst);
            assert!(lengths.iter().all(|(wanted, found)| wanted == found), "{lengths:?}");
        });
    }

    /// How long the file is when the turn of that cut is over.
    fn cut_in_turn(file: &Arc<File>, runtime: &Runtime, len: u64) -> u64 {
        let before = file.line.turn();
        let (cut, (tell, told)) = (file.clone(), std::sync::mpsc::channel());
        let task = runtime.spawn(move || {
            tell.send(()).unwrap();
            cut.set_len(len)
        });
        told.recv().unwrap();
        // The only worker takes this up when that one waits.
        runtime.block_on(|| ());
        drop(before);
        while !file.line.is_idle() {
            std::hint::spin_loop();
        }
        let found = file.inner.metadata().unwrap().len();
        task.join().unwrap().unwrap();
        found
    }
}
