//! The pipe that `run` waits on, the one for those who wait for signals, and the signal handlers that write to them.
//!
//! What streams of signals need beyond SIGINT and SIGTERM stands in `signal_streams`.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::fork::Own;
use super::signal_streams;

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    RootEnded,
    Exit,
    Signal(i32),
    /// A SIGINT that went to those who wait for it.
    Interrupt,
}

impl Event {
    fn byte(self) -> u8 {
        match self {
            Event::RootEnded => 0,
            Event::Exit => 255,
            Event::Interrupt => 254,
            Event::Signal(n) => n as u8,
        }
    }

    fn from_byte(b: u8) -> Event {
        match b {
            0 => Event::RootEnded,
            255 => Event::Exit,
            254 => Event::Interrupt,
            n => Event::Signal(n.into()),
        }
    }
}

/// Whether the running thread executes on its alternate signal stack.
pub(crate) fn on_alternate_stack() -> bool {
    // SAFETY: all zeros is a valid `stack_t`; the call only reads.
    unsafe {
        let mut now: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(std::ptr::null(), &mut now) == 0 && now.ss_flags & libc::SS_ONSTACK != 0
    }
}

static WRITE_END: AtomicI32 = AtomicI32::new(-1);
/// Where signals go for which somebody waits; open for the rest of the process.
static INTERRUPT_END: AtomicI32 = AtomicI32::new(-1);
/// Somebody has asked for SIGINT by way of [`take_interrupt`]; for the rest of the process.
static TAKES_INTERRUPT: AtomicBool = AtomicBool::new(false);
/// The signals that stop the `run` that lasts, a bit for each.
static RUN_HANDLES: AtomicU32 = AtomicU32::new(0);
/// How many SIGINTs have gone there. Counted in the handler, so that whoever begins to wait knows which came before.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
/// The process that the pipes belong to: a forked child has copies of them.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// A close-on-exec pipe, reading end first.
pub(super) fn pipe(flags: libc::c_int) -> io::Result<[RawFd; 2]> {
    let mut fds = [-1; 2];
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        // Miri knows no `poll`: there the read itself waits.
        let flags = if cfg!(miri) { libc::O_CLOEXEC } else { libc::O_CLOEXEC | flags };
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    {
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe(fds.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        for fd in fds {
            // SAFETY: plain flag changes on our own descriptors.
            unsafe {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                libc::fcntl(fd, libc::F_SETFL, flags);
            }
        }
    }
    Ok(fds)
}

/// Async-signal-safe. A full pipe already wakes its reader.
pub(super) fn write_byte(fd: RawFd, b: u8) {
    // SAFETY: one byte from a live variable.
    unsafe { libc::write(fd, (&raw const b).cast(), 1) };
}

/// Reading end and writing end; at most one exists, because at most one `run` does.
#[derive(Debug)]
pub(crate) struct ControlPipe {
    read: RawFd,
    write: RawFd,
    /// A child that was forked must not tell the parent of its own end.
    own: Option<[Own; 2]>,
}

/// Tells the pipe when it is dropped.
#[derive(Debug)]
pub(crate) struct OnDrop(Event);

impl Drop for OnDrop {
    fn drop(&mut self) {
        ControlPipe::notify(self.0);
    }
}

impl ControlPipe {
    pub(crate) fn new() -> io::Result<ControlPipe> {
        let fds = pipe(libc::O_NONBLOCK)?;
        WRITE_END.store(fds[1], Ordering::SeqCst);
        Ok(ControlPipe { read: fds[0], write: fds[1], own: Some(fds.map(Own::new)) })
    }

    pub(crate) fn on_drop(&self, event: Event) -> OnDrop {
        OnDrop(event)
    }

    /// Async-signal-safe. Without a pipe nobody waits, and nothing happens.
    pub(crate) fn notify(event: Event) {
        let fd = WRITE_END.load(Ordering::SeqCst);
        if fd >= 0 {
            write_byte(fd, event.byte());
        }
    }

    /// The next event; `None` when `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Event> {
        let deadline = timeout.map(|t| std::time::Instant::now() + t);
        loop {
            let mut b = 0u8;
            // SAFETY: one byte into a live variable.
            if unsafe { libc::read(self.read, (&raw mut b).cast(), 1) } == 1 {
                return Some(Event::from_byte(b));
            }
            let left = deadline.map(|d| d.saturating_duration_since(std::time::Instant::now()));
            if left.is_some_and(|l| l.is_zero()) {
                return None;
            }
            let _waits = left.is_none().then(super::parker::Waiting::new);
            let _ = super::poll_fd(self.read, false, left);
        }
    }
}

impl Drop for ControlPipe {
    fn drop(&mut self) {
        WRITE_END.store(-1, Ordering::SeqCst);
        drop(self.own.take());
        // SAFETY: our own descriptors. A handler that read the number just before writes one byte to a closed or
        // foreign descriptor at worst; handlers are restored before the pipe goes.
        unsafe {
            libc::close(self.read);
            libc::close(self.write);
        }
    }
}

/// The reading end of the pipe for those who wait for signals.
#[derive(Debug)]
pub(crate) struct InterruptPipe {
    read: RawFd,
}

impl InterruptPipe {
    /// The reading end blocks, the writing end, which the handler uses, does not.
    pub(crate) fn new() -> io::Result<(InterruptPipe, InterruptSender)> {
        let fds = pipe(0)?;
        // SAFETY: a plain flag change on our own descriptor.
        unsafe { libc::fcntl(fds[1], libc::F_SETFL, libc::O_NONBLOCK) };
        Ok((InterruptPipe { read: fds[0] }, InterruptSender(fds[1])))
    }

    /// Waits for the next one; false if the pipe is of no use.
    pub(crate) fn wait(&self) -> bool {
        loop {
            let mut b = 0u8;
            // SAFETY: one byte into a live variable.
            match unsafe { libc::read(self.read, (&raw mut b).cast(), 1) } {
                1 => return true,
                0 => return false,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
    }
}

impl Drop for InterruptPipe {
    fn drop(&mut self) {
        // SAFETY: our own descriptor.
        unsafe { libc::close(self.read) };
    }
}

/// The writing end, which the handler does not use yet.
#[derive(Debug)]
pub(crate) struct InterruptSender(RawFd);

impl InterruptSender {
    /// From now on signals that somebody waits for go here, for the rest of the process.
    pub(crate) fn connect(self) {
        INTERRUPT_END.store(self.0, Ordering::SeqCst);
        std::mem::forget(self);
    }
}

impl Drop for InterruptSender {
    fn drop(&mut self) {
        // SAFETY: our own descriptor, which nobody else has the number of.
        unsafe { libc::close(self.0) };
    }
}

/// How many SIGINTs have come for those who wait for them.
pub(crate) fn interrupts() -> u64 {
    INTERRUPTS.load(Ordering::SeqCst)
}

/// Makes SIGINT ours if it is not, also if it was ignored: somebody waits for it.
pub(crate) fn take_interrupt() -> io::Result<()> {
    if cfg!(miri) {
        return Ok(());
    }
    TAKES_INTERRUPT.store(true, Ordering::SeqCst);
    if handles(&disposition(libc::SIGINT)?) {
        return Ok(());
    }
    handle(libc::SIGINT)
}

/// Whether the handler is the one of SIGINT and SIGTERM.
pub(super) fn handles(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as *const () as usize
}

/// Whether that signal stops `run` where nobody else asks for it.
pub(super) fn stops_run_now(signal: libc::c_int) -> bool {
    RUN_HANDLES.load(Ordering::SeqCst) & 1 << signal != 0
}

/// Whether the signal is somebody's who waits, other than by a stream.
pub(super) fn is_asked_for(signal: libc::c_int) -> bool {
    signal == libc::SIGINT && TAKES_INTERRUPT.load(Ordering::SeqCst)
}

/// Tells those who wait for signals. Async-signal-safe.
pub(super) fn wake_waiters() {
    let fd = INTERRUPT_END.load(Ordering::SeqCst);
    if fd >= 0 {
        write_byte(fd, 0);
    }
}

/// The frame of a handler of this module; see [`handling`].
pub(super) fn handling_here(number: libc::c_int, act: impl FnOnce()) {
    handling(number, &PROCESS, act);
}

/// Makes the process known whose handlers these are.
pub(super) fn of_this_process() {
    PROCESS.store(std::process::id(), Ordering::SeqCst);
}

pub(super) fn disposition(signal: libc::c_int) -> io::Result<libc::sigaction> {
    // SAFETY: plain data, which the call fills.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        match libc::sigaction(signal, std::ptr::null(), &mut old) {
            0 => Ok(old),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

pub(super) fn handle(signal: libc::c_int) -> io::Result<()> {
    of_this_process();
    install(signal, on_signal)
}

/// From now on that function handles that signal: it interrupts no call that can go on, and runs on the signal stack. It has
/// to be async-signal-safe.
pub(super) fn install(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: plain data; the handler is async-signal-safe.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler as *const () as usize;
        new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&mut new.sa_mask);
        match libc::sigaction(signal, &new, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The frame of a handler that belongs to one process. In a forked child the signal does what it does by default, once the
/// handler has returned: the child has no runtime, and must not speak for its parent.
pub(super) fn handling(number: libc::c_int, process: &AtomicU32, act: impl FnOnce()) {
    // SAFETY: errno belongs to the interrupted code; it is put back. All calls are async-signal-safe.
    unsafe {
        let errno = super::errno_location();
        let saved = *errno;
        if libc::getpid().cast_unsigned() != process.load(Ordering::SeqCst) {
            libc::signal(number, libc::SIG_DFL);
            libc::raise(number);
        } else {
            act();
        }
        *errno = saved;
    }
}

extern "C" fn on_signal(number: libc::c_int) {
    handling(number, &PROCESS, || {
        let streamed = signal_streams::arrived(number);
        if streamed || is_asked_for(number) {
            if number == libc::SIGINT {
                INTERRUPTS.fetch_add(1, Ordering::SeqCst);
            }
            wake_waiters();
            ControlPipe::notify(Event::Interrupt);
        } else {
            ControlPipe::notify(Event::Signal(number));
        }
    });
}

/// The handlers of SIGINT and SIGTERM while this lives; then what was there before.
pub(crate) struct HandlerGuard {
    old: Vec<(libc::c_int, libc::sigaction)>,
}

impl HandlerGuard {
    /// For a `run` that leaves the signals alone.
    pub(crate) fn none() -> HandlerGuard {
        HandlerGuard { old: Vec::new() }
    }

    /// SIGINT stays with our handler when this goes.
    pub(crate) fn keep_interrupt(&mut self) {
        self.old.retain(|(signal, _)| *signal != libc::SIGINT);
    }

    pub(crate) fn install() -> io::Result<HandlerGuard> {
        let mut guard = HandlerGuard::none();
        if cfg!(miri) {
            return Ok(guard);
        }
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let old = disposition(signal)?;
            // Whoever started us wants the signal ignored (a background job, nohup).
            if old.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            handle(signal)?;
            RUN_HANDLES.fetch_or(1 << signal, Ordering::SeqCst);
            guard.old.push((signal, old));
        }
        Ok(guard)
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        RUN_HANDLES.store(0, Ordering::SeqCst);
        for (signal, old) in &self.old {
            // A stream that was made before the run and has gone meanwhile left it to this to put back what *it* found; one
            // that is still there takes what is to be put back.
            if let Some(old) = signal_streams::after_run(*signal, old) {
                // SAFETY: restores what `install` found.
                unsafe { libc::sigaction(*signal, &old, std::ptr::null_mut()) };
            }
        }
    }
}
