//! Stacks that were walked before, recognised by one word for each of their frames.
//!
//! By which rule a frame is unwound follows from its code address alone. As long as the rules need nothing but the stack pointer,
//! the address also says where the next return address lies, before that is read. So the stacks of a process form a tree: at each
//! node stands where to read, and the word that is read there leads to the next node, until the task's base is reached. Finding
//! a stack in it costs a sixth of walking it, and its text comes along.
//!
//! Invariants: a stack is kept only if its walk reached the task's base, and went the same way in copies in which all other words and
//! the frame pointer were something else. So what is found here is what a walk would find. Nothing is kept that was seen only
//! once; the tree is bounded, and begins anew when it is full.
//!
//! Must not know: tasks, how frames are called.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault};

use super::symbols::AddressHasher;
use super::walk::{End, Registers, StackBytes, Step, Walker};

type Map<K> = HashMap<K, u32, BuildHasherDefault<AddressHasher>>;

/// So many nodes at most: about 8 MB with the texts.
const MOST_NODES: usize = 32_768;
/// Stacks remembered by hash alone. A power of two.
const REMEMBERED: usize = 16_384;
/// In the lowest bit of such a hash: it was tried to learn that stack.
const TRIED: u64 = 1;
/// What stands in the place of words that a walk must not need.
const OTHERS: [u8; 2] = [0x00, 0xa5];

/// What is beyond an address.
#[derive(Debug)]
enum Node {
    /// The next return address, so far above the first stack pointer.
    Below(usize),
    /// Nothing: the address was the base.
    End(Known),
}

/// A whole stack.
#[derive(Debug)]
struct Known {
    /// Innermost first.
    addresses: Box<[usize]>,
    /// Where all but the first stand, above the first stack pointer, and the base.
    words: Box<[(usize, usize)]>,
    text: Option<Box<str>>,
}

/// A stack that was found, until the next one is learned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape(u32);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Shapes {
    nodes: Vec<Node>,
    /// By first address.
    first: Map<usize>,
    /// By node and the word that stands where it says.
    next: Map<(usize, usize)>,
    /// What was found last.
    last: Option<Shape>,
    remembered: Box<[u64]>,
    trail: Vec<Step>,
    again: Vec<Step>,
    bytes: Vec<u8>,
}

impl Shapes {
    pub(super) fn new() -> Shapes {
        Shapes {
            nodes: Vec::new(),
            first: Map::default(),
            next: Map::default(),
            last: None,
            remembered: vec![0; REMEMBERED].into(),
            trail: Vec::new(),
            again: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Other images are loaded, or other names are known.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.first.clear();
        self.next.clear();
        self.last = None;
        self.remembered.fill(0);
    }

    /// The stack of a task that does not run, if it is known.
    pub(super) fn find(&mut self, registers: &Registers, stack: &StackBytes<'_>) -> Option<Shape> {
        if let Some(known) = self.last.and_then(|shape| self.known(shape))
            && known.addresses.first() == Some(&registers.ip)
            && known.words.iter().all(|(offset, word)| stack.read(stack.base.wrapping_add(*offset)) == Some(*word))
        {
            return self.last;
        }
        let mut at = *self.first.get(&registers.ip)?;
        while let Node::Below(offset) = &self.nodes[at as usize] {
            let word = stack.read(stack.base.wrapping_add(*offset))?;
            at = *self.next.get(&(at as usize, word))?;
        }
        self.last = Some(Shape(at));
        self.last
    }

    fn known(&self, shape: Shape) -> Option<&Known> {
        match self.nodes.get(shape.0 as usize)? {
            Node::End(known) => Some(known),
            Node::Below(_) => None,
        }
    }

    /// Its addresses, innermost first.
    pub(super) fn addresses(&self, shape: Shape) -> &[usize] {
        self.known(shape).map_or(&[], |known| &known.addresses)
    }

    /// Its text, if it was kept.
    pub(super) fn text(&self, shape: Shape) -> Option<&str> {
        self.known(shape)?.text.as_deref()
    }

    pub(super) fn keep_text(&mut self, shape: Shape, text: &str) {
        if let Node::End(known) = &mut self.nodes[shape.0 as usize] {
            known.text = Some(text.into());
        }
    }

    /// A stack was walked to its base: keeps it if that was not the first time, and if it can be known without a walk.
    pub(super) fn walked(
        &mut self,
        addresses: &[usize],
        walker: &mut Walker,
        registers: &Registers,
        stack: &StackBytes<'_>,
    ) {
        let hash = BuildHasherDefault::<AddressHasher>::default().hash_one(addresses) & !TRIED;
        let remembered = &mut self.remembered[(hash >> 1) as usize & (REMEMBERED - 1)];
        if *remembered & !TRIED != hash {
            *remembered = hash;
        } else if *remembered & TRIED == 0 {
            *remembered |= TRIED;
            if self.needs_nothing_else(walker, registers, stack) {
                self.learn(addresses, stack.base);
            }
        }
    }

    /// Leaves the walk's steps in `trail`.
    fn needs_nothing_else(&mut self, walker: &mut Walker, registers: &Registers, stack: &StackBytes<'_>) -> bool {
        let Shapes { trail, again, bytes, .. } = self;
        if registers.sp != stack.base || walker.trail(registers, stack, trail) != End::Complete || trail.len() < 2 {
            return false;
        }
        OTHERS.iter().all(|other| {
            bytes.clear();
            bytes.resize(stack.bytes.len(), *other);
            for step in &trail[1..] {
                let Some(word) = step.return_at().and_then(|at| at.checked_sub(stack.base)).map(|at| at..at + WORD)
                else {
                    return false;
                };
                let (Some(to), Some(from)) = (bytes.get_mut(word.clone()), stack.bytes.get(word)) else { return false };
                to.copy_from_slice(from);
            }
            let registers = Registers { fp: usize::from_ne_bytes([*other; WORD]), ..*registers };
            let end = walker.trail(&registers, &StackBytes { base: stack.base, bytes }, again);
            end == End::Complete && again == trail
        })
    }

    /// Puts the stack whose steps lie in `trail` into the tree.
    fn learn(&mut self, addresses: &[usize], base: usize) {
        if self.nodes.len() + self.trail.len() > MOST_NODES {
            self.clear();
        }
        let mut before = None;
        for (i, step) in self.trail.iter().enumerate() {
            let new = self.nodes.len() as u32;
            let node = match before {
                None => self.first.entry(step.address).or_insert(new),
                Some(node) => self.next.entry((node, step.address)).or_insert(new),
            };
            before = Some(*node as usize);
            if *node != new {
                continue;
            }
            self.nodes.push(match self.trail.get(i + 1).and_then(Step::return_at) {
                Some(at) => Node::Below(at - base),
                None => {
                    let word = |step: &Step| step.return_at().map(|at| (at - base, step.address));
                    let words = self.trail.iter().skip(1).filter_map(word).collect();
                    Node::End(Known { addresses: addresses.into(), words, text: None })
                }
            });
        }
    }
}

const WORD: usize = size_of::<usize>();
