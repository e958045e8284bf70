//! Walks real suspended stacks: a miniature context switch suspends a call chain, its stack is
//! copied, and the copy is walked. x86-64 Linux only. It must not use the real switch, so that a
//! fault here is a fault of the walker. The tests that compare names need a symbol table.

use super::condensed::{Detail, First, StackTexts};
use super::modules::ModuleMap;
use super::shapes::Shapes;
use super::symbols::{DebugInfo, Symbols};
use super::walk::{End, MAX_FRAMES, Registers, StackBytes, Walker};
use std::arch::{asm, global_asm};
use std::cell::Cell;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Ctx {
    sp: usize,
    fp: usize,
    ip: usize,
    rbx: usize,
}

#[derive(Default)]
struct Pair {
    outside: Ctx,
    task: Ctx,
}

thread_local! {
    static CURRENT: Cell<*mut Pair> = const { Cell::new(std::ptr::null_mut()) };
}

global_asm!(
    ".globl coro_walk_test_entry",
    ".globl coro_walk_test_entry_end",
    ".type coro_walk_test_entry, @function",
    "coro_walk_test_entry:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    "mov rdi, rbx",
    "call {run}",
    "ud2",
    ".cfi_endproc",
    "coro_walk_test_entry_end:",
    run = sym run,
);

// A function whose frame is found by the frame pointer, as code that is built with frame pointers has them.
global_asm!(
    ".globl coro_walk_test_framed",
    ".type coro_walk_test_framed, @function",
    "coro_walk_test_framed:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "call rdi",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
);

unsafe extern "C" {
    fn coro_walk_test_entry();
    fn coro_walk_test_entry_end();
    fn coro_walk_test_framed(called: extern "C" fn());
}

extern "C" fn suspend_framed() {
    suspend();
    black_box(());
}

type Body<'a> = Box<dyn FnOnce() + 'a>;

extern "C" fn run(body: *mut Option<Body<'_>>) {
    // SAFETY: `Suspended::new` passes its boxed body through `rbx` and keeps the box.
    let body = unsafe { (*body).take() };
    body.unwrap()();
    suspend();
    unreachable!("resumed after its end");
}

/// # Safety
/// `to` was filled by a switch on this thread or by `Suspended::new`, and its stack still exists.
#[inline(always)]
unsafe fn switch(from: *mut Ctx, to: *const Ctx) {
    // SAFETY: the caller vouches for `to`; every register the other side may change is an output,
    // and `rbx` and `rbp`, which cannot be named, travel in the contexts.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "mov [rdi], rsp",
            "mov [rdi + 8], rbp",
            "mov [rdi + 16], rax",
            "mov [rdi + 24], rbx",
            "mov rsp, [rsi]",
            "mov rbp, [rsi + 8]",
            "mov rbx, [rsi + 24]",
            "jmp [rsi + 16]",
            "2:",
            inout("rdi") from => _,
            inout("rsi") to => _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("sysv64"),
        );
    }
}

#[inline(always)]
fn suspend() {
    let pair = CURRENT.get();
    // SAFETY: `resume` set the pair and is waiting in its switch; both contexts are live.
    unsafe { switch(&raw mut (*pair).task, &raw const (*pair).outside) };
}

struct Suspended<'a> {
    pair: Box<Pair>,
    stack: Vec<u128>,
    _body: Box<Option<Body<'a>>>,
}

impl<'a> Suspended<'a> {
    fn new(body: impl FnOnce() + 'a) -> Suspended<'a> {
        let stack = vec![0u128; 32 * 1024];
        let mut body: Box<Option<Body<'a>>> = Box::new(Some(Box::new(body)));
        let mut pair = Box::<Pair>::default();
        pair.task = Ctx {
            sp: stack.as_ptr_range().end as usize,
            fp: 0,
            ip: coro_walk_test_entry as *const () as usize,
            rbx: &raw mut *body as usize,
        };
        let mut suspended = Suspended { pair, stack, _body: body };
        suspended.resume();
        suspended
    }

    #[inline(never)]
    fn resume(&mut self) {
        let pair: *mut Pair = &raw mut *self.pair;
        CURRENT.set(pair);
        // SAFETY: the task's context was made by `new` or saved by `suspend`; its stack is ours.
        unsafe { switch(&raw mut (*pair).outside, &raw const (*pair).task) };
    }

    fn registers(&self) -> Registers {
        let Ctx { sp, fp, ip, .. } = self.pair.task;
        Registers { ip, sp, fp }
    }

    fn copy(&self) -> Vec<u8> {
        let end = self.stack.as_ptr_range().end as usize;
        let sp = self.pair.task.sp;
        // SAFETY: `[sp, end)` lies in `self.stack`, which does not run now.
        unsafe { std::slice::from_raw_parts(sp as *const u8, end - sp).to_vec() }
    }
}

impl Drop for Suspended<'_> {
    /// Lets the body run to its end, so that what it owns is dropped.
    fn drop(&mut self) {
        self.resume();
    }
}

fn walker() -> Walker {
    let mut walker = Walker::with_modules(Arc::new(ModuleMap::load()));
    walker.set_base_range(coro_walk_test_entry as *const () as usize, coro_walk_test_entry_end as *const () as usize);
    walker
}

fn walk(walker: &mut Walker, suspended: &Suspended<'_>) -> (End, Vec<usize>) {
    let (regs, bytes) = (suspended.registers(), suspended.copy());
    let mut out = Vec::new();
    let end = walker.walk(&regs, &StackBytes { base: regs.sp, bytes: &bytes }, &mut out);
    (end, out)
}

/// Last path segments of all frames, inlined ones included, that start with `prefix`.
fn names(symbols: &mut Symbols, addresses: &[usize], prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, &address) in addresses.iter().enumerate() {
        for frame in symbols.resolve(address, at > 0).iter() {
            let last = frame.function.rsplit("::").next().unwrap();
            if last.starts_with(prefix) {
                names.push(last.to_string());
            }
        }
    }
    names
}

fn symbols(walker: &Walker) -> Symbols {
    Symbols::new(Arc::clone(walker.modules()))
}

/// Functions with frames of different sizes that call each other along a path.
macro_rules! steps {
    ($($name:ident $words:literal)*) => {
        $(
            #[inline(never)]
            fn $name(path: &[u8]) -> usize {
                let mut room = [0usize; $words];
                black_box(&mut room);
                let below = next_step(path);
                // Work after the call, so that it is no tail call.
                black_box(&mut room).iter().sum::<usize>() + below + 1
            }
        )*
        const STEPS: &[(&str, fn(&[u8]) -> usize)] = &[$((stringify!($name), $name)),*];
    };
}
steps! { step_a 0 step_b 1 step_c 7 step_d 33 step_e 600 step_f 129 }

#[inline(always)]
fn next_step(path: &[u8]) -> usize {
    match path.split_first() {
        Some((&step, rest)) => black_box(STEPS[step as usize].1)(rest),
        None => {
            suspend();
            0
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn a_chain_is_found_in_order() {
    let mut walker = walker();
    let suspended = Suspended::new(|| _ = step_a(&[1, 2, 3]));
    let (end, addresses) = walk(&mut walker, &suspended);
    assert_eq!(end, End::Complete);
    let mut symbols = symbols(&walker);
    assert_eq!(names(&mut symbols, &addresses, "step_"), ["step_d", "step_c", "step_b", "step_a"]);
}

#[test]
fn a_hundred_random_chains() {
    let mut walker = walker();
    let mut symbols = symbols(&walker);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..100 {
        let path: Vec<u8> = (0..=random.next() % 40).map(|_| (random.next() % STEPS.len() as u64) as u8).collect();
        let suspended = Suspended::new(|| _ = next_step(&path));
        let (end, addresses) = walk(&mut walker, &suspended);
        assert_eq!(end, End::Complete, "round {round}, {path:?}");
        let expected: Vec<&str> = path.iter().rev().map(|&step| STEPS[step as usize].0).collect();
        assert_eq!(names(&mut symbols, &addresses, "step_"), expected, "round {round}");
    }
}

#[test]
fn recursion_of_depth_500_and_beyond_the_limit() {
    let mut walker = walker();
    let suspended = Suspended::new(|| _ = step_c(&[2; 499]));
    let (end, addresses) = walk(&mut walker, &suspended);
    assert_eq!(end, End::Complete);
    let mut symbols = symbols(&walker);
    assert_eq!(names(&mut symbols, &addresses, "step_").len(), 500);
    drop(suspended);

    let suspended = Suspended::new(|| _ = step_b(&[1; 1500]));
    let (end, addresses) = walk(&mut walker, &suspended);
    assert_eq!((end, addresses.len()), (End::Truncated, MAX_FRAMES));
}

trait Dynamic {
    fn dyn_method(&self) -> usize;
}

struct Receiver(usize);

impl Dynamic for Receiver {
    #[inline(never)]
    fn dyn_method(&self) -> usize {
        let caught = std::panic::catch_unwind(|| through_qsort(self.0));
        black_box(caught.unwrap()) + 1
    }
}

#[inline(never)]
fn through_qsort(seed: usize) -> usize {
    let mut items = [seed, 2, 1];
    // SAFETY: the array has three elements of that size and the comparator reads only them.
    unsafe { libc::qsort(items.as_mut_ptr().cast(), 3, size_of::<usize>(), Some(compare)) };
    black_box(items[0]) + 1
}

extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true) {
        suspend();
    }
    // SAFETY: `qsort` passes elements of the array of `through_qsort`.
    unsafe { (*a.cast::<usize>()).cmp(&*b.cast::<usize>()) as libc::c_int }
}

#[inline(never)]
fn with_closure(f: &mut dyn FnMut() -> usize) -> usize {
    black_box(f()) + 1
}

#[test]
fn through_a_panic_boundary_and_a_c_callback() {
    let mut walker = walker();
    let suspended = Suspended::new(|| {
        let receiver: Box<dyn Dynamic> = Box::new(Receiver(3));
        black_box(with_closure(&mut || black_box(&receiver).dyn_method() + 1));
    });
    let (end, addresses) = walk(&mut walker, &suspended);
    assert_eq!(end, End::Complete);
    let mut symbols = symbols(&walker);
    let mut texts = StackTexts::new();
    let mut line = String::new();
    texts.write(&addresses, First::ResumePoint, Detail::Folded, &mut symbols, &mut line);
    let mut whole = String::new();
    texts.write(&addresses, First::ResumePoint, Detail::Whole, &mut symbols, &mut whole);
    println!("folded: {line}\nwhole: {whole}");
    let mut from = 0;
    let info = symbols.warm();
    for name in [" compare|", " through_qsort|", "dyn_method|", " with_closure|", " run|"] {
        let at = line[from..].find(name).unwrap_or_else(|| panic!("no {name} in order: {line}"));
        from += at + 1;
    }
    if info == DebugInfo::Full {
        // The switch itself, not whatever was inlined behind it.
        assert!(line.starts_with("[inspect/walk_tests.rs switch|"), "{line}");
        assert!(line.contains("[inspect/walk_tests.rs Receiver::dyn_method|"), "{line}");
        assert!(whole.contains("[std/panic catch_unwind|"), "{whole}");
        assert!(line.contains("c_callback::{closure}|"), "{line}");
    }
    assert!(!line.contains("__libc_start"), "{line}");
    for glue in ["call_once", "catch_unwind", "__rust_try", "do_call"] {
        assert!(!line.contains(glue), "{glue} in {line}");
    }
    assert!(whole.len() > line.len() || info != DebugInfo::Full, "{whole}");
}

#[test]
fn every_cut_gives_a_prefix() {
    let mut walker = walker();
    let suspended = Suspended::new(|| _ = step_a(&[1, 2, 3, 0, 5, 1]));
    let (regs, bytes) = (suspended.registers(), suspended.copy());
    let (_, full) = walk(&mut walker, &suspended);
    let mut lengths = std::collections::BTreeSet::new();
    // The last word is the return address into the trampoline, so no cut can be complete.
    for cut in 0..bytes.len() {
        let mut out = Vec::new();
        let stack = StackBytes { base: regs.sp, bytes: &bytes[..cut] };
        let end = walker.walk(&regs, &stack, &mut out);
        assert!(full.starts_with(&out), "cut {cut}: {out:x?} of {full:x?}");
        assert_eq!(end, End::Truncated, "cut {cut}");
        lengths.insert(out.len());
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), (1..=full.len()).collect::<Vec<_>>());
}

#[test]
fn garbage_never_harms() {
    let mut walker = walker();
    let map = Arc::clone(walker.modules());
    let texts: Vec<_> = [coro_walk_test_entry as *const () as usize, libc::qsort as *const () as usize]
        .into_iter()
        .map(|address| map.code_at(address).unwrap())
        .collect();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut bytes = vec![0u8; 4096];
    let mut out = Vec::new();
    let base = 0x7000_0000_0000usize;
    let mut deepest = 0;
    for _ in 0..50_000 {
        let mut code = || {
            let text = &texts[(random.next() % 2) as usize];
            text.start + (random.next() as usize) % (text.end - text.start)
        };
        let (ip, other) = (code(), code());
        for word in bytes.chunks_exact_mut(8) {
            // Mostly plausible words: code, and addresses inside the stack.
            let value = match random.next() % 4 {
                0 => random.next() as usize,
                1 => base + (random.next() as usize) % 4104,
                2 => other.wrapping_add(random.next() as usize % 64),
                _ => (random.next() % 3) as usize,
            };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        let near = |n: u64| base.wrapping_add((n % 4200) as usize).wrapping_sub(50);
        let regs = Registers {
            ip: if random.next().is_multiple_of(16) { random.next() as usize } else { ip },
            sp: if random.next().is_multiple_of(16) { random.next() as usize } else { near(random.next()) },
            fp: if random.next().is_multiple_of(4) { random.next() as usize } else { near(random.next()) },
        };
        out.clear();
        _ = walker.walk(&regs, &StackBytes { base, bytes: &bytes }, &mut out);
        assert!(out.len() <= MAX_FRAMES);
        deepest = deepest.max(out.len());
        for (at, &address) in out.iter().enumerate() {
            assert!(map.code_at(address - usize::from(at > 0)).is_some());
        }
    }
    assert!(deepest > 1, "the garbage was too implausible to test anything");
}

/// As views do it: a stack that is known is not walked.
fn find_or_walk(shapes: &mut Shapes, walker: &mut Walker, suspended: &Suspended<'_>) -> (bool, Vec<usize>) {
    let (regs, bytes) = (suspended.registers(), suspended.copy());
    let stack = StackBytes { base: regs.sp, bytes: &bytes };
    let mut walked = Vec::new();
    assert_eq!(walker.walk(&regs, &stack, &mut walked), End::Complete);
    match shapes.find(&regs, &stack) {
        Some(shape) => (true, shapes.addresses(shape).to_vec()),
        None => {
            shapes.walked(&walked, walker, &regs, &stack);
            (false, walked)
        }
    }
}

#[test]
fn a_known_stack_is_what_a_walk_finds() {
    let (mut walker, mut shapes, mut random) = (walker(), Shapes::new(), Random(0x2545_f491_4f6c_dd1d));
    let (mut known, mut seen) = (0, HashMap::new());
    for _ in 0..400 {
        let path: Vec<u8> = (0..random.next() % 4).map(|_| (random.next() % 3) as u8).collect();
        let suspended = Suspended::new(|| _ = black_box(next_step(&path)));
        let (is_known, found) = find_or_walk(&mut shapes, &mut walker, &suspended);
        assert_eq!(found, walk(&mut walker, &suspended).1, "{path:?}");
        known += usize::from(is_known);
        drop(suspended);
        let times = seen.entry(path).or_insert(0);
        assert!(!is_known || *times >= 2, "kept the first time");
        *times += 1;
    }
    // Forty paths, each of which is walked twice; a few more if their hashes collide.
    assert!(known > 200, "{known}");
    shapes.clear();
    let suspended = Suspended::new(|| _ = black_box(next_step(&[1])));
    assert!(!find_or_walk(&mut shapes, &mut walker, &suspended).0);
}

#[test]
fn a_stack_is_known_by_its_return_addresses_alone() {
    let (mut walker, mut shapes) = (walker(), Shapes::new());
    let suspended = Suspended::new(|| _ = black_box(next_step(&[3, 1, 2])));
    let known = [(); 3].map(|()| find_or_walk(&mut shapes, &mut walker, &suspended).0);
    assert_eq!(known, [false, false, true]);
    let (regs, mut bytes) = (suspended.registers(), suspended.copy());
    let addresses = walk(&mut walker, &suspended).1;
    let shape = shapes.find(&regs, &StackBytes { base: regs.sp, bytes: &bytes }).unwrap();
    shapes.keep_text(shape, "text");
    let mut needed = 0;
    for at in (0..bytes.len() - 7).step_by(8) {
        let stack = |bytes: &[u8], shapes: &mut Shapes| {
            let found = shapes.find(&regs, &StackBytes { base: regs.sp, bytes })?;
            assert_eq!((shapes.addresses(found), shapes.text(found)), (&addresses[..], Some("text")));
            Some(found)
        };
        bytes[at] ^= 1;
        needed += usize::from(stack(&bytes, &mut shapes).is_none());
        bytes[at] ^= 1;
        assert!(stack(&bytes, &mut shapes).is_some());
        // Nothing beyond the copy is read.
        assert!(stack(&bytes[..at], &mut shapes).is_none());
    }
    assert_eq!(needed, addresses.len(), "all but the first, and the base");
}

#[test]
fn a_stack_that_needs_the_frame_pointer_is_walked_each_time() {
    let (mut walker, mut shapes) = (walker(), Shapes::new());
    // SAFETY: the function calls what it is given, on an aligned stack.
    let suspended = Suspended::new(|| unsafe { coro_walk_test_framed(suspend_framed) });
    let known = [(); 4].map(|()| find_or_walk(&mut shapes, &mut walker, &suspended).0);
    assert_eq!(known, [false; 4]);
}

#[test]
fn a_walk_needs_no_loader_lock() {
    unsafe extern "C" fn stand_still(_: *mut libc::dl_phdr_info, _: usize, data: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the test passes its pair of barriers, which outlives this call.
        let (inside, leave) = unsafe { &*data.cast::<(std::sync::Barrier, std::sync::Barrier)>() };
        inside.wait();
        leave.wait();
        1
    }
    let mut walker = walker();
    let suspended = Suspended::new(|| _ = step_a(&[1, 2]));
    let barriers = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let data = (&raw const barriers).cast_mut().cast();
            // SAFETY: see `stand_still`.
            unsafe { libc::dl_iterate_phdr(Some(stand_still), data) };
        });
        barriers.0.wait();
        let (end, addresses) = walk(&mut walker, &suspended);
        barriers.1.wait();
        assert_eq!(end, End::Complete);
        assert!(addresses.len() > 3);
    });
}

#[test]
fn a_library_loaded_later_is_found_after_refresh() {
    let mut walker = walker();
    // Another test keeps the loader's lock for a while.
    let fresh = || super::loaded::refreshed(std::time::Duration::from_secs(10));
    walker.set_modules(fresh());
    assert!(!walker.set_modules(fresh()));
    // SAFETY: a system library without constructors of interest.
    let handle = unsafe { libc::dlopen(c"libresolv.so.2".as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null(), "libresolv.so.2 is part of glibc");
    assert!(walker.set_modules(fresh()));
    let is_resolv = |image: &super::modules::Image| image.path.contains("libresolv");
    assert!(walker.modules().images.iter().any(is_resolv));
    assert!(!walker.set_modules(fresh()));
    // SAFETY: nothing of the library is in use.
    unsafe { libc::dlclose(handle) };
    walker.set_modules(fresh());
    let suspended = Suspended::new(|| _ = step_a(&[1, 2]));
    assert_eq!(walk(&mut walker, &suspended).0, End::Complete);
}

/// Figures: `cargo test --release measure -- --ignored --nocapture --test-threads=1`.
#[test]
#[ignore = "prints figures"]
fn measure() {
    let each = |start: Instant, n: usize| start.elapsed().as_nanos() as f64 / n as f64;
    let start = Instant::now();
    let first = Walker::with_modules(Arc::new(ModuleMap::load()));
    println!("Walker::new, first in process: {:?}", start.elapsed());
    drop(first);
    let start = Instant::now();
    for _ in 0..100 {
        black_box(Walker::with_modules(Arc::new(ModuleMap::load())));
    }
    println!("Walker::new, again: {:.1} µs", each(start, 100) / 1e3);
    let names = super::names::Names::new(Arc::new(ModuleMap::load()));
    let mut bytes = [0; 256];
    let start = Instant::now();
    names.name_of(measure as *const () as usize, &mut super::names::FixedBuf::new(&mut bytes));
    println!("first name, for which the symbol table is read: {:?}", start.elapsed());
    let start = Instant::now();
    names.prepare();
    println!("symbol tables of all libraries: {:?}", start.elapsed());
    let mut walker = walker();
    let start = Instant::now();
    for _ in 0..1000 {
        walker.set_modules(super::loaded::refreshed(super::loaded::PATIENCE));
    }
    println!("refresh without change: {:.2} µs", each(start, 1000) / 1e3);

    let mut symbols = symbols(&walker);
    let start = Instant::now();
    let info = symbols.warm();
    println!("first warm: {:?}, {info:?}", start.elapsed());

    let path: Vec<u8> = (0..16).map(|step| step % 6).collect();
    let suspended = Suspended::new(|| _ = next_step(&path));
    let (regs, bytes) = (suspended.registers(), suspended.copy());
    let stack = StackBytes { base: regs.sp, bytes: &bytes };
    let mut out = Vec::with_capacity(64);
    let start = Instant::now();
    _ = walker.walk(&regs, &stack, &mut out);
    println!("cold walk: {:.0} ns per frame, {} frames", each(start, out.len()), out.len());
    let frames = out.len();
    let start = Instant::now();
    for _ in 0..100_000 {
        out.clear();
        _ = black_box(walker.walk(&regs, &stack, &mut out));
    }
    println!("hot walk: {:.1} ns per frame", each(start, 100_000 * frames));

    let text = walker.modules().code_at(measure as *const () as usize).unwrap();
    let step = (text.end - text.start) / 2000;
    let start = Instant::now();
    for n in 0..2000 {
        black_box(symbols.resolve(text.start + n * step, false));
    }
    println!("new address: {:.1} µs", each(start, 2000) / 1e3);
    let start = Instant::now();
    for n in 0..2000 {
        black_box(symbols.resolve(text.start + n * step, false));
    }
    println!("cached address: {:.0} ns", each(start, 2000));

    let mut random = Random(7);
    let mut pick = |count: usize| -> Vec<Vec<usize>> {
        let mut stack = || {
            let address = |at| text.start + (random.next() % 2000) as usize * step + usize::from(at > 0);
            (0..20).map(address).collect()
        };
        (0..count).map(|_| stack()).collect()
    };
    let mut texts = StackTexts::new();
    let mut line = String::with_capacity(1 << 20);
    let mut render = |what: &str, stacks: &[Vec<usize>]| {
        let (start, mut bytes) = (Instant::now(), 0);
        for n in 0..100_000 {
            line.clear();
            texts.write(&stacks[n % stacks.len()], First::Instruction, Detail::Folded, &mut symbols, &mut line);
            bytes += line.len();
        }
        println!("100,000 stacks of 20, {what}: {:?}, {} bytes each", start.elapsed(), bytes / 100_000);
    };
    render("2,000 addresses, not yet rendered, all distinct", &pick(100_000));
    render("all distinct", &pick(100_000));
    render("1,000 distinct", &pick(1000));
    render("10 distinct", &pick(10));
    render("one real stack of 18", std::slice::from_ref(&out));
}
