//! Tasks without a runtime, on one thread: the floor for any runtime whose tasks have stacks.
//!
//! There are switches between stacks, a queue of what can go on, and a heap of what sleeps. Nothing is atomic, counted, limited or seen
//! into, and no other thread can spawn, wake or join. The caller is no task: it spawns, runs everything until nothing goes on, and looks at
//! what came of it. Must not know: what is measured with it.
//!
//! Everything that waits is inlined into the bodies: the processor foresees where a call returns to, but not across a switch.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::vec_deque::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{io, ptr, thread};

use corosensei::stack::{self, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// As large as those of coro.
const STACK: usize = 192 << 10;
/// So many are one mapping: with one for each, the kernel has no more at some 32,000.
const MAPPED: usize = 4096;
/// Their ends differ by multiples of this, or what all of them use most would lie in the same sets of the cache.
const COLOUR: usize = 192;
const COLOURS: usize = 16;
/// So many lines at the end of a stack are fetched while so many others go on.
const LINES: usize = 5;
const AHEAD: usize = 2;

/// Its upper end.
struct Stack(StackPointer);

// SAFETY: what lies between limit and end is mapped for good and this stack's alone, and the end is a multiple of 64. There is no guard
// page, which the trait asks for and which would be a mapping each: nothing runs on such a stack but the bodies of `bare_tasks`, which do
// not call themselves and need some hundred bytes, and 24 KiB to panic with a backtrace.
unsafe impl stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        self.0
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0.get() - (STACK - COLOUR * COLOURS)).expect("nothing is mapped at zero")
    }
}

/// Where the mappings begin; none is ever unmapped.
#[derive(Default)]
struct Stacks(Vec<usize>);

impl Stacks {
    fn end(&self, number: usize) -> usize {
        self.0[number / MAPPED] + (number % MAPPED + 1) * STACK - number % COLOURS * COLOUR
    }

    /// By number: each once, and one after the other.
    fn add(&mut self, number: usize) -> Stack {
        if number == self.0.len() * MAPPED {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
            // SAFETY: a new mapping, where the kernel has room for it.
            let place = unsafe { libc::mmap(ptr::null_mut(), STACK * MAPPED, access, kind, -1, 0) };
            assert!(place != libc::MAP_FAILED, "no room for stacks: {}", io::Error::last_os_error());
            self.0.push(place.expose_provenance());
        }
        Stack(StackPointer::new(self.end(number)).expect("nothing is mapped at zero"))
    }

    fn fetch(&self, number: usize) {
        #[cfg(target_arch = "x86_64")]
        for line in 1..=LINES {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: it changes nothing, and any address may be given to it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::without_provenance(self.end(number) - line * 64)) };
        }
    }
}

/// What several tasks of one thread have in common: without the flag of a `RefCell`, which was a third of a round trip.
struct Queue<T>(UnsafeCell<VecDeque<T>>);

impl<T> Queue<T> {
    fn new() -> Queue<T> {
        Queue(UnsafeCell::new(VecDeque::new()))
    }

    /// Only for the methods of this type.
    fn with<R>(&self, body: impl FnOnce(&mut VecDeque<T>) -> R) -> R {
        // SAFETY: no body switches, comes back to this queue or keeps the reference, so there is no other one.
        body(unsafe { &mut *self.0.get() })
    }

    fn push(&self, item: T) {
        self.with(|all| all.push_back(item));
    }

    fn pop(&self) -> Option<T> {
        self.with(VecDeque::pop_front)
    }

    fn len(&self) -> usize {
        self.with(|all| all.len())
    }
}

enum Ready {
    /// It has no stack yet.
    New(Rc<dyn Begin>),
    Again(usize),
}

impl Queue<Ready> {
    /// Whose turn comes soon.
    fn ahead(&self) -> Option<usize> {
        self.with(|all| if let Some(Ready::Again(number)) = all.get(AHEAD) { Some(*number) } else { None })
    }
}

/// A body until it begins, and then what it returned: one piece of memory, for the queue and for whoever spawned it.
pub(super) struct Spawned<F, T> {
    body: Cell<Option<F>>,
    returned: Cell<Option<T>>,
}

impl<F, T> Spawned<F, T> {
    /// After a `run`.
    pub(super) fn returned(&self) -> T {
        self.returned.take().expect("a task waits for what nobody does")
    }
}

trait Begin {
    fn begin(&self, task: Task<'_>);
}

impl<F: FnOnce(Task<'_>) -> T, T> Begin for Spawned<F, T> {
    fn begin(&self, task: Task<'_>) {
        self.returned.set(self.body.take().map(|body| body(task)));
    }
}

/// What tasks can reach.
struct Common {
    ready: Queue<Ready>,
    /// Until when, and who.
    asleep: RefCell<BinaryHeap<Reverse<(Instant, usize)>>>,
}

/// Gives its task's turn away, and says whether it can go on.
type Switch = Yielder<(), bool>;
type Routine = Coroutine<(), bool, (), Stack>;

/// The task that runs, to its body.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    number: usize,
    switch: &'a Switch,
    common: &'a Common,
}

impl Task<'_> {
    #[inline(always)]
    pub(super) fn yield_now(self) {
        self.switch.suspend(true);
    }

    /// Until somebody wakes it.
    #[inline(always)]
    pub(super) fn wait(self) {
        self.switch.suspend(false);
    }

    fn wake(self, other: usize) {
        self.common.ready.push(Ready::Again(other));
    }

    #[inline(always)]
    pub(super) fn sleep(self, time: Duration) {
        self.common.asleep.borrow_mut().push(Reverse((Instant::now() + time, self.number)));
        self.wait();
    }
}

/// What runs the tasks, on the stack of the thread.
pub(super) struct Floor {
    common: &'static Common,
    /// Those that have begun and not ended, by number.
    routines: Vec<Option<Routine>>,
    /// Numbers that nobody has, each with its stack.
    free: Vec<(usize, Stack)>,
    stacks: Stacks,
}

impl Floor {
    pub(super) fn new() -> Floor {
        let common = Box::leak(Box::new(Common { ready: Queue::new(), asleep: RefCell::default() }));
        Floor { common, routines: Vec::new(), free: Vec::new(), stacks: Stacks::default() }
    }

    pub(super) fn spawn<F: FnOnce(Task<'_>) -> T + 'static, T: 'static>(&self, body: F) -> Rc<Spawned<F, T>> {
        let spawned = Rc::new(Spawned { body: Cell::new(Some(body)), returned: Cell::new(None) });
        self.common.ready.push(Ready::New(spawned.clone()));
        spawned
    }

    /// What all of them returned.
    pub(super) fn join<F: FnOnce(Task<'_>) -> T + 'static, T: 'static>(
        &mut self,
        bodies: impl Iterator<Item = F>,
    ) -> impl Iterator<Item = T> {
        let all: Vec<_> = bodies.map(|body| self.spawn(body)).collect();
        self.run();
        all.into_iter().map(|task| task.returned())
    }

    /// Until nothing goes on any more.
    pub(super) fn run(&mut self) {
        loop {
            if let Some(number) = self.common.ready.ahead() {
                self.stacks.fetch(number);
            }
            match self.common.ready.pop() {
                Some(Ready::Again(number)) => self.go_on(number),
                Some(Ready::New(spawned)) => self.begin(spawned),
                None if self.wait_for_time() => {}
                None => return,
            }
        }
    }

    fn begin(&mut self, spawned: Rc<dyn Begin>) {
        let (number, stack) = self.free.pop().unwrap_or_else(|| {
            let number = self.routines.len();
            self.routines.push(None);
            (number, self.stacks.add(number))
        });
        let common = self.common;
        let body = move |switch: &Switch, ()| spawned.begin(Task { number, switch, common });
        self.routines[number] = Some(Routine::with_stack(stack, body));
        self.go_on(number);
    }

    #[inline(always)]
    fn go_on(&mut self, number: usize) {
        let place = &mut self.routines[number];
        match place.as_mut().expect("it has not ended").resume(()) {
            CoroutineResult::Yield(true) => self.common.ready.push(Ready::Again(number)),
            CoroutineResult::Yield(false) => {}
            CoroutineResult::Return(()) => {
                self.free.extend(place.take().map(|routine| (number, routine.into_stack())));
            }
        }
    }

    /// Those whose time has come go on, for which it waits if need be; false if nobody sleeps.
    fn wait_for_time(&self) -> bool {
        let mut asleep = self.common.asleep.borrow_mut();
        let Some(&Reverse((first, _))) = asleep.peek() else { return false };
        let mut now = Instant::now();
        if first > now {
            thread::sleep(first - now);
            now = Instant::now();
        }
        while let Some(next) = asleep.peek_mut()
            && next.0.0 <= now
        {
            self.common.ready.push(Ready::Again(PeekMut::pop(next).0.1));
        }
        true
    }
}

/// With room for so many messages, and one receiver.
pub(super) struct Channel {
    room: usize,
    messages: Queue<u64>,
    receiver: Cell<Option<usize>>,
    senders: Queue<usize>,
}

impl Channel {
    pub(super) fn new(room: usize) -> Rc<Channel> {
        Rc::new(Channel { room, messages: Queue::new(), receiver: Cell::new(None), senders: Queue::new() })
    }

    #[inline(always)]
    pub(super) fn put(&self, task: Task<'_>, value: u64) {
        while self.messages.len() == self.room {
            self.senders.push(task.number);
            task.wait();
        }
        self.messages.push(value);
        if let Some(receiver) = self.receiver.take() {
            task.wake(receiver);
        }
    }

    #[inline(always)]
    pub(super) fn next(&self, task: Task<'_>) -> u64 {
        let value = loop {
            if let Some(value) = self.messages.pop() {
                break value;
            }
            self.receiver.set(Some(task.number));
            task.wait();
        };
        if let Some(sender) = self.senders.pop() {
            task.wake(sender);
        }
        value
    }
}

/// Whoever runs may overtake those that wait, of which it wakes one at a time.
pub(super) struct Lock {
    held: Cell<bool>,
    /// Somebody was woken, and has not run since.
    woken: Cell<bool>,
    waiting: Queue<usize>,
    pub(super) value: Cell<usize>,
}

impl Lock {
    pub(super) fn new() -> Lock {
        Lock { held: Cell::new(false), woken: Cell::new(false), waiting: Queue::new(), value: Cell::new(0) }
    }

    #[inline(always)]
    pub(super) fn lock(&self, task: Task<'_>) {
        while self.held.get() {
            self.waiting.push(task.number);
            task.wait();
            self.woken.set(false);
        }
        self.held.set(true);
    }

    pub(super) fn unlock(&self, task: Task<'_>) {
        self.held.set(false);
        if !self.woken.get()
            && let Some(next) = self.waiting.pop()
        {
            self.woken.set(true);
            task.wake(next);
        }
    }
}
