//! `coro symbolize`: names in a dump what its program could not name, with the help of files that have the symbols.
//!
//! A program that was stripped writes `[app+0x1234]`, where the number is an address as stated in its file, the same for
//! every start of it. The file from before the stripping has the name at the same address, if it is of the same build:
//! that is told by the build id, which `modules`, and the end of a dump, show beside the name.
//!
//! Must not know: where the dump comes from.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use addr2line::Loader;
use object::Object as _;

use crate::terminal::plain;
use crate::{Failure, Outcome};

pub(crate) const USAGE: &str = "usage: coro symbolize [NAME=]FILE... < DUMP
Replaces `app+0x1234` in a dump by function, file and line, from FILEs that still have their symbols: the executable
from before it was stripped, or its separate debug information. A FILE is for the module of its own name, without a
suffix such as .debug; for the one whose build id, in the dump, is the FILE's; or for NAME.
A FILE whose build id is not the one that the dump gives for the module is not used.
  coro symbolize target/release/app < dump
  coro ask 4711 stacks | coro symbolize app=build/app.unstripped
Exit codes: 0 done, 1 a FILE cannot be read or is of another build, 2 called wrongly.";

/// Suffixes of files with symbols beside the stripped one.
const SUFFIXES: &[&str] = &["debug", "unstripped", "dbg", "sym", "full"];

pub(crate) fn run(mut arguments: lexopt::Parser) -> Outcome {
    let mut files = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Value(word) => files.push(Symbols::load(&word).map_err(Failure::Failed)?),
            other => return Err(other.unexpected().into()),
        }
    }
    if files.is_empty() {
        return Err(Failure::Usage("which file has the symbols?".into()));
    }
    let mut text = Vec::new();
    for line in io::stdin().lock().split(b'\n') {
        let line = line.map_err(|error| Failure::Failed(format!("cannot read standard input ({error})")))?;
        text.push(String::from_utf8_lossy(&line).into_owned());
    }
    let mut all = All::new(files, &build_ids(&text));
    let mut out = BufWriter::new(io::stdout().lock());
    let written = text.iter().try_for_each(|line| writeln!(out, "{}", all.named(line))).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(Failure::Failed(format!("cannot write ({error})")));
        }
        _ => {}
    }
    for problem in &all.problems {
        eprintln!("coro symbolize: {problem}");
    }
    if all.problems.is_empty() { Ok(()) } else { Err(Failure::Told) }
}

/// A file with symbols.
struct Symbols {
    path: PathBuf,
    /// The module that it was given for.
    given: Option<String>,
    build_id: Option<String>,
    loader: Loader,
}

impl Symbols {
    /// From an argument.
    fn load(argument: &OsStr) -> Result<Symbols, String> {
        let text = argument.to_str();
        // A path may contain the sign too; then the file is there.
        let split = text.and_then(|text| text.split_once('=')).filter(|_| !Path::new(argument).exists());
        let (given, path) = match split {
            Some((name, path)) if !name.is_empty() => (Some(name.to_owned()), PathBuf::from(path)),
            _ => (None, PathBuf::from(argument)),
        };
        let shown = path.display();
        let bytes = fs::read(&path).map_err(|error| format!("{shown}: cannot be read ({error})"))?;
        let file = object::File::parse(&*bytes).map_err(|error| format!("{shown}: no executable ({error})"))?;
        let build_id = file.build_id().ok().flatten().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect());
        if !file.has_debug_symbols() && file.symbols().next().is_none() {
            return Err(format!("{shown}: it has no symbols either; give the file from before it was stripped"));
        }
        let loader = Loader::new(&path).map_err(|error| format!("{shown}: cannot be used ({error})"))?;
        Ok(Symbols { path, given, build_id, loader })
    }

    /// The module's name that the file goes by.
    fn name(&self) -> String {
        if let Some(given) = &self.given {
            return given.clone();
        }
        let path = &self.path;
        let has_suffix = path.extension().is_some_and(|it| SUFFIXES.iter().any(|suffix| it == *suffix));
        let name = if has_suffix { path.file_stem() } else { path.file_name() };
        name.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Calls at an address, the innermost first: function, file and line.
    fn calls(&self, address: u64) -> Vec<(String, Option<String>, Option<u32>)> {
        let mut calls = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let Some(function) = &frame.function else { continue };
                let name = function.demangle().map(std::borrow::Cow::into_owned).unwrap_or_else(|_| "?".into());
                let place = frame.location.as_ref();
                calls.push((name, place.and_then(|it| it.file).map(str::to_owned), place.and_then(|it| it.line)));
            }
        }
        if calls.is_empty()
            && let Some(symbol) = self.loader.find_symbol(address)
        {
            calls.push((addr2line::demangle_auto(symbol.into(), None).into_owned(), None, None));
        }
        calls
    }
}

/// The build ids that a dump gives, by the module's name:
/// `app is stripped (build id 0123…; the file from before says …)` and `0x1000-0x2000 build id 0123… /path/app`.
fn build_ids(text: &[String]) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    for line in text {
        let Some((before, after)) = line.split_once("build id ") else { continue };
        let id: String = after.chars().take_while(char::is_ascii_hexdigit).collect();
        let name = match before.strip_suffix(" is stripped (") {
            Some(before) => before.rsplit(' ').next().unwrap_or_default(),
            None => after[id.len()..].trim().rsplit('/').next().unwrap_or_default(),
        };
        if !id.is_empty() && !name.is_empty() {
            ids.insert(name.to_owned(), id);
        }
    }
    ids
}

/// Every file, by the module that it is for.
struct All {
    files: Vec<Symbols>,
    by_module: HashMap<String, usize>,
    known: HashMap<(usize, u64), String>,
    problems: Vec<String>,
}

impl All {
    fn new(files: Vec<Symbols>, ids: &BTreeMap<String, String>) -> All {
        let (mut by_module, mut problems) = (HashMap::new(), Vec::new());
        for (index, file) in files.iter().enumerate() {
            let own = file.name();
            match (ids.get(&own), &file.build_id) {
                (Some(wanted), Some(has)) if wanted != has => problems.push(format!(
                    "{} has the build id {has}, and {own} in the dump {wanted}: it is of another build and was not used",
                    file.path.display()
                )),
                _ => _ = by_module.insert(own, index),
            }
            if let Some(has) = &file.build_id {
                by_module.extend(ids.iter().filter(|(_, id)| *id == has).map(|(name, _)| (name.clone(), index)));
            }
        }
        // One that goes by another module's build is not missed.
        problems.retain(|problem| {
            !files.iter().enumerate().any(|(index, file)| {
                problem.starts_with(&file.path.display().to_string()) && by_module.values().any(|used| *used == index)
            })
        });
        All { files, by_module, known: HashMap::new(), problems }
    }

    /// The line with everything named that can be.
    fn named(&mut self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(at) = rest.find("+0x") {
            let digits = &rest[at + 3..];
            let length = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let end = at + 3 + length;
            let begin = rest[..at].rfind(is_boundary).map_or(0, |before| before + 1);
            let address = u64::from_str_radix(&digits[..length], 16).ok();
            let name = &rest[begin..at];
            let found = match (self.by_module.get(name).copied(), address) {
                (Some(file), Some(address)) => self.text(file, address),
                _ => None,
            };
            match found {
                Some(text) => {
                    let in_brackets = rest[..begin].ends_with('[') && rest[end..].starts_with(']');
                    let from = if in_brackets { begin - 1 } else { begin };
                    out.push_str(&rest[..from]);
                    out.push_str(&text);
                    rest = &rest[if in_brackets { end + 1 } else { end }..];
                }
                None => {
                    out.push_str(&rest[..end]);
                    rest = &rest[end..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// `[src/db.rs app::db::fetch|31] [src/main.rs app::serve|88]`, the innermost call first.
    fn text(&mut self, file: usize, address: u64) -> Option<String> {
        if let Some(known) = self.known.get(&(file, address)) {
            return Some(known.clone());
        }
        let calls = self.files[file].calls(address);
        if calls.is_empty() {
            return None;
        }
        let texts: Vec<String> = calls.iter().map(|(name, file, line)| frame(name, file.as_deref(), *line)).collect();
        let text = texts.join(" ");
        self.known.insert((file, address), text.clone());
        Some(text)
    }
}

/// What cannot stand in the name of a module in a dump, where spaces and brackets are escaped or around it.
fn is_boundary(c: char) -> bool {
    c.is_whitespace() || matches!(c, '[' | ']' | '(' | ')' | '"' | ',')
}

fn frame(name: &str, file: Option<&str>, line: Option<u32>) -> String {
    let line = line.map_or_else(|| "?".to_owned(), |line| line.to_string());
    match file {
        Some(file) => plain(&format!("[{} {name}|{line}]", short(file))),
        None => plain(&format!("[{name}|{line}]")),
    }
}

/// The last two parts of a path.
fn short(path: &str) -> &str {
    let mut cuts = path.rmatch_indices('/').map(|(at, _)| at + 1);
    let _ = cuts.next();
    cuts.next().map_or(path, |at| &path[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_says_which_build_a_module_is_of() {
        let text = [
            "app is stripped (build id 0123abcd; the file from before says what app+0x1234 is: addr2line -Cfipe app 0x1234",
            "coro: lib.so is stripped (without a build id); the file …",
            "0x5581-0x5592 build id ffee00 /usr/bin/other",
        ];
        let ids = build_ids(&text.map(str::to_owned));
        let all: Vec<(&str, &str)> = ids.iter().map(|(name, id)| (name.as_str(), id.as_str())).collect();
        assert_eq!(all, [("app", "0123abcd"), ("other", "ffee00")]);
    }

    #[test]
    fn a_path_is_shown_by_its_end() {
        for (path, shown) in [("/a/b/c.rs", "b/c.rs"), ("/c.rs", "/c.rs"), ("b/c.rs", "b/c.rs"), ("c.rs", "c.rs")] {
            assert_eq!(short(path), shown);
        }
    }

    #[inline(never)]
    fn a_place_to_be_found() -> usize {
        std::hint::black_box(17)
    }

    /// This program has its symbols; its own functions are looked up, by their addresses as stated in the file.
    #[test]
    fn addresses_of_this_program_are_named() {
        let own = std::env::current_exe().expect("this program");
        let bytes = fs::read(&own).expect("its file");
        let file = object::File::parse(&*bytes).expect("an executable");
        assert_eq!(a_place_to_be_found(), 17);
        let symbol = object::Object::symbols(&file)
            .find(|symbol| object::ObjectSymbol::name(symbol).is_ok_and(|name| name.contains("a_place_to_be_found")))
            .expect("its own function");
        let address = object::ObjectSymbol::address(&symbol);
        let symbols = Symbols::load(own.as_os_str()).expect("symbols");
        let name = symbols.name();
        let mut all = All::new(vec![symbols], &BTreeMap::new());
        let line = all.named(&format!("#1 parked [{name}+{address:#x}] [other+0x10] {name}+{address:#x} in {name}"));
        let place = line.split(']').next().expect("a frame");
        assert!(place.contains("src/symbolize.rs ") && place.contains("a_place_to_be_found|"), "{line}");
        assert!(line.contains(" [other+0x10] [src/symbolize.rs "), "{line}");

        let symbols = Symbols::load(own.as_os_str()).expect("symbols");
        let ids = BTreeMap::from([(name.clone(), "00".to_owned())]);
        if symbols.build_id.is_some() {
            let mut all = All::new(vec![symbols], &ids);
            let line = format!("[{name}+{address:#x}]");
            assert_eq!(all.named(&line), line);
            assert!(all.problems[0].contains("of another build"), "{:?}", all.problems);
        }
    }
}
