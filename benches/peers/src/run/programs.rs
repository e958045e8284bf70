//! The programs: this one for `bare` and every runtime in Rust but coro, `benches/peer-coro` and `go/main.go`, which are built here.
//!
//! Both Rust programs get the same profile. A runtime without a program is told, not passed over.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::runtimes::{BARE, label};
use crate::counters::COUNTERS;

/// The release profile of this package, for coro's program, which has another manifest.
const PROFILE: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_LTO", "thin"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")];

/// Where this package lies.
pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What each runtime runs with.
pub(super) struct Programs {
    /// By the runtime's name: the program, and the words before those of the protocol.
    found: BTreeMap<&'static str, (PathBuf, Option<&'static str>)>,
    /// Why a runtime has none.
    pub(super) missing: BTreeMap<&'static str, String>,
    pub(super) versions: BTreeMap<&'static str, String>,
    /// What cannot be counted here, and why.
    pub(super) uncounted: BTreeMap<&'static str, String>,
    pub(super) wrk: bool,
}

impl Programs {
    /// Builds what is asked for.
    pub(super) fn build(wanted: &[&'static str], coro: Option<PathBuf>) -> Result<Programs, String> {
        let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
        let beside = own.parent().unwrap_or(Path::new(".")).to_owned();
        let mut programs = Programs {
            found: BTreeMap::new(),
            missing: BTreeMap::new(),
            versions: BTreeMap::new(),
            uncounted: COUNTERS.iter().filter_map(|c| Some((c.what, c.missing()?))).collect(),
            wrk: false,
        };
        if let Some(version) = first_line(Command::new("wrk").arg("-v")) {
            programs.wrk = true;
            // The copyright follows.
            let words = version.split(' ').skip(1).take_while(|word| *word != "Copyright");
            programs.versions.insert("wrk", words.collect::<Vec<_>>().join(" "));
        }
        for name in wanted {
            match *name {
                "coro" => {
                    let path = match &coro {
                        Some(path) => path.clone(),
                        None => build_coro()?,
                    };
                    programs.found.insert(name, (path, None));
                    programs.versions.insert(name, coro_version());
                }
                "go" => match build_go(&beside)? {
                    Some((path, version)) => {
                        programs.found.insert(name, (path, None));
                        programs.versions.insert(name, version);
                    }
                    None => {
                        programs.missing.insert(name, "not installed".to_owned());
                    }
                },
                // Of nothing that has a version.
                BARE => drop(programs.found.insert(name, (own.clone(), Some("work")))),
                // As the versions of the others, which have no choice.
                "monoio" => {
                    programs.found.insert(name, (own.clone(), Some("work")));
                    programs.versions.insert(name, format!("{} (on {})", locked(name), crate::work::monoio::driver()));
                }
                _ => {
                    programs.found.insert(name, (own.clone(), Some("work")));
                    programs.versions.insert(name, locked(label(name)));
                }
            }
        }
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        if let Some(version) = first_line(Command::new(rustc).arg("--version")) {
            // Number alone: the commit and its day follow in parentheses.
            let number = version.split(" (").next().unwrap_or(&version);
            programs.versions.insert("rustc", number.to_owned());
        }
        Ok(programs)
    }

    /// The metrics of what can be counted here.
    pub(super) fn counted(&self) -> Vec<&'static str> {
        COUNTERS.iter().filter(|c| !self.uncounted.contains_key(c.what)).map(|c| c.metric).collect()
    }

    /// The command for a runtime, up to its own words.
    pub(super) fn command(&self, runtime: &str) -> Option<Command> {
        let (path, word) = self.found.get(runtime)?;
        let mut command = Command::new(path);
        command.args(*word);
        Some(command)
    }
}

/// What a command says first; nothing if it cannot be run or says nothing.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned())
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Builds coro's program beside the other things of this package, because its profile is not that of the workspace.
fn build_coro() -> Result<PathBuf, String> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| package().join("target"), PathBuf::from).join("coro");
    let output = Command::new(cargo())
        .args(["build", "--release", "--locked", "-p", "peer-coro", "--message-format=json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(package().join("../../Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .envs(PROFILE)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err("coro's program could not be built".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let path = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    path.ok_or_else(|| "cargo named no program".to_owned())
}

/// The program and Go's version, if there is a Go: `$GO`, or in the path.
fn build_go(beside: &Path) -> Result<Option<(PathBuf, String)>, String> {
    let go = std::env::var_os("GO").unwrap_or_else(|| "go".into());
    let folder = package().join("go");
    let Some(version) = first_line(Command::new(&go).arg("version").current_dir(&folder)) else { return Ok(None) };
    let path = beside.join("peer-go");
    let built = Command::new(&go).args(["build", "-o"]).arg(&path).arg(".").current_dir(&folder).status();
    match built {
        Ok(status) if status.success() => {
            let number = version.split(' ').find(|word| word.starts_with("go1")).unwrap_or(&version);
            Ok(Some((path, number.trim_start_matches("go").to_owned())))
        }
        Ok(_) => Err("go/main.go could not be built".to_owned()),
        Err(error) => Err(format!("go: {error}")),
    }
}

/// The version of a package in this package's lock file.
fn locked(name: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let entry = format!("name = \"{name}\"\nversion = \"");
    let version = lock.split(&entry).nth(1).and_then(|rest| rest.split('"').next());
    version.unwrap_or("?").to_owned()
}

/// The commit, and a plus where something that it does not have was built as well.
fn coro_version() -> String {
    let git = |words: &[&str]| first_line(Command::new("git").current_dir(package()).args(words));
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "not in a repository".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    format!("{commit}{}", if changed { "+" } else { "" })
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_found_in_the_lock_file() {
        for name in ["tokio", "may", "smol", "glommio", "monoio", "hyper", "may_minihttp"] {
            assert!(super::locked(name).starts_with(|c: char| c.is_ascii_digit()), "{name} is not in Cargo.lock");
        }
    }
}
