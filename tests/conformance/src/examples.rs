//! Makes tests of the examples in std's documentation: each code block becomes one, named after its line.
//!
//! They show what the tests do not: that every documented method is there, with the types that its example gives it.
//! Follows rustdoc's rules as far as the files of the suite need them. Must not know paths; `rewrite` does.

use std::fmt::Write as _;

/// A code block of a documentation comment.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Where it begins, counted from 1.
    line: usize,
    /// The words behind the opening fence.
    info: String,
    /// The code, with the lines that the documentation hides.
    code: String,
}

/// A text with one test for each example of `text` that compiles on its own. Those that use an unstable feature which
/// is not in `mirrored` are left away, as are those that must not compile.
pub fn tests_of(text: &str, mirrored: &[&str]) -> String {
    let mut out = String::new();
    for block in blocks(text) {
        let words: Vec<&str> = block.info.split([',', ' ']).filter(|w| !w.is_empty()).collect();
        let known =
            words.iter().all(|w| matches!(*w, "rust" | "no_run" | "should_panic" | "edition2021" | "edition2024"));
        if !known || features(&block.code).iter().any(|f| !mirrored.contains(f)) {
            continue;
        }
        let attribute = match () {
            () if words.contains(&"no_run") => "#[ignore = \"shown only\"]\n",
            () if words.contains(&"should_panic") => "#[should_panic]\n",
            () => "",
        };
        let _ = writeln!(out, "#[test]\n{attribute}fn line_{}() {{\n{}}}\n", block.line, body(&block.code));
    }
    out
}

fn body(code: &str) -> String {
    let code: String = code.lines().filter(|l| !l.starts_with("#![")).map(|l| format!("{l}\n")).collect();
    if code.contains("fn main()") {
        format!("{code}super::helpers::ended_well(main());\n")
    } else if code.trim_end().ends_with("(())") {
        // An example that uses `?` ends with `Ok::<(), E>(())`.
        format!("fn inner() -> Result<(), impl ::core::fmt::Debug> {{\n{code}}}\ninner().unwrap();\n")
    } else {
        code
    }
}

fn features(code: &str) -> Vec<&str> {
    let lines = code.lines().filter_map(|l| l.trim().strip_prefix("#![feature(")?.strip_suffix(")]"));
    lines.flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut out = Vec::new();
    let mut open: Option<Block> = None;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let Some(said) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            open = None;
            continue;
        };
        match (said.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => out.extend(open.take()),
            (Some(info), None) => {
                open = Some(Block { line: i + 1, info: info.trim().to_owned(), code: String::new() });
            }
            (None, Some(block)) => {
                block.code.push_str(&shown(said.strip_prefix(' ').unwrap_or(said)));
                block.code.push('\n');
            }
            (None, None) => {}
        }
    }
    out
}

/// A line as the compiler sees it: `# ` hides it from readers.
fn shown(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let rest = &line[indent..];
    let rest = match rest.strip_prefix('#') {
        Some("") => "",
        Some(hidden) if hidden.starts_with(' ') => hidden,
        Some(escaped) if escaped.starts_with('#') => escaped,
        _ => rest,
    };
    format!("{}{rest}", &line[..indent])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_becomes_a_test_named_after_its_line() {
        let text = "/// Text.\n/// ```\n/// f(1);\n/// # g();\n/// ```\nfn f() {}\n//! ```no_run\n//! h();\n//! ```\n";
        assert_eq!(
            tests_of(text, &[]),
            "#[test]\nfn line_2() {\nf(1);\n g();\n}\n\n#[test]\n#[ignore = \"shown only\"]\nfn line_7() {\nh();\n}\n\n"
        );
    }

    #[test]
    fn mains_and_question_marks_are_called() {
        let main = tests_of("/// ```\n/// fn main() -> io::Result<()> { Ok(()) }\n/// ```", &[]);
        assert!(main.contains("fn main() -> io::Result<()> { Ok(()) }\nsuper::helpers::ended_well(main());"), "{main}");
        let question = tests_of("/// ```\n/// x?;\n/// # Ok::<(), E>(())\n/// ```", &[]);
        assert!(question.contains("fn inner() -> Result<(), impl ::core::fmt::Debug> {\nx?;"), "{question}");
    }

    #[test]
    fn what_cannot_be_compiled_is_left_away() {
        for info in ["text", "compile_fail", "compile_fail,E0373", "ignore (why)", "console"] {
            assert_eq!(tests_of(&format!("/// ```{info}\n/// x\n/// ```"), &[]), "", "{info}");
        }
        let text = "/// ```\n/// #![feature(new, newer)]\n/// x();\n/// ```";
        assert_eq!(tests_of(text, &["new"]), "");
        let both = tests_of(text, &["new", "newer"]);
        assert_eq!(both, "#[test]\nfn line_1() {\nx();\n}\n\n");
    }

    #[test]
    fn hidden_and_escaped_lines() {
        assert_eq!(shown("# use a;"), " use a;");
        assert_eq!(shown("  #"), "  ");
        assert_eq!(shown("##[x]"), "#[x]");
        assert_eq!(shown("#[x]"), "#[x]");
        assert_eq!(shown("x # y"), "x # y");
    }
}
