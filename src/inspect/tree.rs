//! The spawn tree: who made whom, tasks of one class below one parent put together.
//!
//! ```text
//! #1 "main" src/main.rs:12 parked
//!   ×10000 src/server.rs:40: 9990 parked, 10 runnable
//!     ×20000 src/conn.rs:7: 20000 parked
//! spawned by tasks that have ended:
//!   ×12 src/job.rs:9: 12 parked
//! ```
//!
//! A task is known by 40 bytes while the tree is built; names are asked for when the tree is written, and only those of
//! tasks that stand alone.
//!
//! Must not know: how tasks are walked to, where the text goes.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::capture::Captured;
use super::classes::ClassNames;
use super::frames::Frames;
use super::line::{PIECE_BYTES, TaskState, pour, summary};
use super::row::{States, push_id, push_name, word};
use super::snapshot::Snapshot;
use super::sweep::{Sweep, Swept, Then};
use super::text::{Ink, Style, inked, push_escaped, push_number};
use crate::task::TaskCell;

/// Deeper nodes are not indented further.
const DEEPEST_INDENT: usize = 32;

/// A task, as far as the tree is concerned.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u64,
    parent: u64,
    /// In [`Builder::classes`].
    class: u32,
    state: TaskState,
    /// Where to ask for its name.
    cell: Option<&'static TaskCell>,
}

/// Collects the tasks.
#[derive(Debug, Default)]
struct Builder {
    entries: Vec<Entry>,
    classes: Vec<Arc<str>>,
    /// By the address of the shared text, which `classes` keeps.
    numbers: HashMap<Arc<str>, u32>,
}

impl Builder {
    fn class(&mut self, class: &Arc<str>) -> u32 {
        if let Some(n) = self.numbers.get(class) {
            return *n;
        }
        let n = self.classes.len() as u32;
        self.classes.push(class.clone());
        self.numbers.insert(class.clone(), n);
        n
    }
}

/// Tasks of one class that were spawned by tasks of one node.
#[derive(Debug)]
struct Node {
    class: u32,
    states: States,
    /// The only task, if there is only one.
    one: Option<Entry>,
    children: Vec<u32>,
}

/// Nodes 0 and 1 hold what has no parent, and what has lost it.
const ROOTS: u32 = 0;
const ORPHANS: u32 = 1;

#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
    classes: Vec<Arc<str>>,
    /// Nodes to be written, the next last, with their depth.
    waiting: Vec<(u32, usize)>,
}

impl Tree {
    fn new(builder: Builder) -> Tree {
        let Builder { mut entries, classes, .. } = builder;
        entries.sort_unstable_by_key(|e| e.id);
        let empty = || Node { class: 0, states: States::default(), one: None, children: Vec::new() };
        let mut tree = Tree { nodes: vec![empty(), empty()], classes, waiting: Vec::new() };
        let mut node_of = vec![u32::MAX; entries.len()];
        let mut by_place: HashMap<(u32, u32), u32> = HashMap::new();
        let mut chain = Vec::new();
        for start in 0..entries.len() {
            // Up to somebody whose node is known, then back down.
            let mut at = start;
            let mut above = loop {
                if node_of[at] != u32::MAX {
                    break node_of[at];
                }
                chain.push(at);
                let parent = entries[at].parent;
                if parent == 0 {
                    break ROOTS;
                }
                match entries.binary_search_by_key(&parent, |e| e.id) {
                    // Nobody is its own ancestor; the bound keeps a wrong number from looping.
                    Ok(p) if chain.len() <= entries.len() => at = p,
                    _ => break ORPHANS,
                }
            };
            while let Some(at) = chain.pop() {
                let entry = entries[at];
                let node = *by_place.entry((above, entry.class)).or_insert_with(|| {
                    tree.nodes.push(Node { class: entry.class, ..empty() });
                    let new = tree.nodes.len() as u32 - 1;
                    tree.nodes[above as usize].children.push(new);
                    new
                });
                let n = &mut tree.nodes[node as usize];
                n.one = (n.states.total() == 0).then_some(entry);
                n.states.add(entry.state);
                node_of[at] = node;
                above = node;
            }
        }
        tree.push_children(ORPHANS, 1);
        if !tree.waiting.is_empty() {
            tree.waiting.push((ORPHANS, 0));
        }
        tree.push_children(ROOTS, 0);
        tree
    }

    /// The children of a node come next, the largest first.
    fn push_children(&mut self, node: u32, depth: usize) {
        let mut children = std::mem::take(&mut self.nodes[node as usize].children);
        children.sort_by(|a, b| {
            let key = |n: &u32| {
                let n = &self.nodes[*n as usize];
                (n.states.total(), std::cmp::Reverse(&self.classes[n.class as usize]))
            };
            key(a).cmp(&key(b))
        });
        self.waiting.extend(children.into_iter().map(|n| (n, depth)));
    }

    /// Writes some more lines; true if there are more. `name` appends the name of a task.
    fn write_some(&mut self, style: Style, out: &mut Vec<u8>, mut name: impl FnMut(&Entry, &mut String)) -> bool {
        let mut text = String::new();
        while let Some((node, depth)) = self.waiting.pop() {
            if node == ORPHANS {
                text.push_str("spawned by tasks that have ended:\n");
                continue;
            }
            (0..depth.min(DEEPEST_INDENT)).for_each(|_| text.push_str("  "));
            let n = &self.nodes[node as usize];
            let class = &self.classes[n.class as usize];
            match &n.one {
                Some(entry) => {
                    inked(style, Ink::Bold, &mut text, |out| push_id(entry.id, out));
                    name(entry, &mut text);
                    text.push(' ');
                    push_escaped(class, &mut text);
                    text.push(' ');
                    text.push_str(word(entry.state));
                }
                None => {
                    inked(style, Ink::Bold, &mut text, |out| {
                        out.push('×');
                        push_number(n.states.total(), out);
                    });
                    text.push(' ');
                    push_escaped(class, &mut text);
                    text.push_str(": ");
                    n.states.write(false, &mut text);
                }
            }
            text.push('\n');
            self.push_children(node, depth + 1);
            if text.len() >= PIECE_BYTES {
                break;
            }
        }
        out.extend_from_slice(text.as_bytes());
        !self.waiting.is_empty()
    }
}

/// The answer to `tree`, a piece at a time.
#[derive(Debug)]
pub(crate) struct TreeCursor {
    sweep: Sweep,
    style: Style,
    builder: Builder,
    tree: Option<Tree>,
    names: ClassNames,
    seen: States,
}

impl TreeCursor {
    pub(crate) fn new(style: Style) -> TreeCursor {
        let mut sweep = Sweep::new();
        sweep.captured.wants_stack = false;
        TreeCursor {
            sweep,
            style,
            builder: Builder::default(),
            tree: None,
            names: ClassNames::default(),
            seen: States::default(),
        }
    }

    /// Appends some more lines; false when the last one, a summary, was written.
    pub(crate) fn more(&mut self, out: &mut Vec<u8>) -> bool {
        let TreeCursor { sweep, style, builder, tree, names, seen } = self;
        let Some(tree) = tree else {
            let swept = sweep.piece(|_: &mut Frames, c: &mut Captured, cell| {
                let (state, class) = (c.state(), builder.class(names.of(c)));
                seen.add(state);
                builder.entries.push(Entry { id: c.id, parent: c.parent, class, state, cell: Some(cell) });
                Then::GoOn
            });
            if swept == Swept::All {
                *tree = Some(Tree::new(std::mem::take(builder)));
            }
            return true;
        };
        let c = &mut sweep.captured;
        let goes_on = tree.write_some(*style, out, |entry, text| {
            if entry.cell.is_some_and(|cell| c.capture(cell, Some(entry.id)))
                && let Some(name) = c.name()
            {
                text.push(' ');
                inked(*style, Ink::Green, text, |out| push_name(name, out));
            }
        });
        if !goes_on {
            summary(seen, 0, sweep, out);
        }
        goes_on
    }
}

/// Writes the tree of tasks that live: who spawned whom, with counts, tasks of one class below one parent on one line;
/// tasks whose parent has ended come last.
///
/// # Errors
/// Those of `out`.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let _tasks: Vec<_> = (0..10).map(|_| coro::spawn(|| coro::sleep(std::time::Duration::from_secs(3600)))).collect();
///     coro::sleep(std::time::Duration::from_millis(20));
///     let mut text = Vec::new();
///     coro::inspect::tree_to(&mut text, coro::inspect::Style::PLAIN)?;
///     let text = String::from_utf8_lossy(&text);
///     assert!(text.lines().any(|l| l.starts_with("  ×10 ") && l.ends_with(": 10 parked")), "{text}");
///     std::io::Result::Ok(())
/// })
/// .unwrap();
/// ```
pub fn tree_to(out: &mut impl io::Write, style: Style) -> io::Result<()> {
    let mut cursor = TreeCursor::new(style);
    pour(out, |piece| cursor.more(piece))
}

impl Snapshot {
    /// Writes the tree of this snapshot as [`tree_to`] writes that of the process.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn tree_to(&self, out: &mut impl io::Write, style: Style) -> io::Result<()> {
        let mut builder = Builder::default();
        for t in &self.tasks {
            let class = builder.class(&t.class);
            builder.entries.push(Entry { id: t.id, parent: t.parent, class, state: t.state, cell: None });
        }
        let names: HashMap<u64, &str> = self.tasks.iter().filter_map(|t| Some((t.id, t.name.as_deref()?))).collect();
        let mut tree = Tree::new(builder);
        pour(out, |piece| {
            tree.write_some(style, piece, |entry, text| {
                if let Some(name) = names.get(&entry.id) {
                    text.push(' ');
                    inked(style, Ink::Green, text, |out| push_name(name, out));
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(tasks: &[(u64, u64, &str)]) -> Tree {
        let mut builder = Builder::default();
        for (id, parent, class) in tasks {
            let class = builder.class(&Arc::from(*class));
            builder.entries.push(Entry { id: *id, parent: *parent, class, state: TaskState::Parked, cell: None });
        }
        Tree::new(builder)
    }

    fn shown(tasks: &[(u64, u64, &str)]) -> String {
        let mut out = Vec::new();
        let mut tree = built(tasks);
        while tree.write_some(Style::PLAIN, &mut out, |e, text| {
            if e.id == 1 {
                text.push_str(" \"main\"");
            }
        }) {}
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_tree_with_collapsed_classes_and_orphans() {
        let mut tasks = vec![(1, 0, "main.rs:1"), (2, 1, "acceptor"), (900, 77, "job.rs:9"), (901, 78, "job.rs:9")];
        // Children are listed before their parents as well as after.
        tasks.extend((10..20).map(|id| (id, 2, "conn")));
        tasks.extend((100..105).map(|id| (id, 10 + id % 10, "timer")));
        tasks.insert(0, (800, 901, "part"));
        assert_eq!(
            shown(&tasks),
            "\
#1 \"main\" main.rs:1 parked
  #2 acceptor parked
    ×10 conn: 10 parked
      ×5 timer: 5 parked
spawned by tasks that have ended:
  ×2 job.rs:9: 2 parked
    #800 part parked
"
        );
    }

    #[test]
    fn a_long_chain_and_a_circle_end() {
        let chain: Vec<_> = (1..100_000).map(|id| (id, id - 1, if id % 2 == 0 { "even" } else { "odd" })).collect();
        let mut tree = built(&chain);
        let (mut pieces, mut lines) = (0, 0);
        loop {
            let mut out = Vec::new();
            let more = tree.write_some(Style::PLAIN, &mut out, |_, _| {});
            (pieces, lines) = (pieces + 1, lines + out.iter().filter(|b| **b == b'\n').count());
            assert!(out.len() < 2 * PIECE_BYTES);
            if !more {
                break;
            }
        }
        assert!(pieces > 10 && lines == 99_999, "{pieces} pieces, {lines} lines");
        assert!(shown(&[(1, 2, "a"), (2, 1, "a")]).lines().count() < 6);
    }
}
