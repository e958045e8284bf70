//! The text of expressions, as far as who types them is concerned: whether one goes on in the next line, how its lines become
//! one, and what `let` binds.
//!
//! The server alone decides what an expression is and means. It holds a line back whose brackets are not closed, and so must
//! whoever types it: here is the same look at strings, comments and brackets.
//!
//! Must not know: the terminal, the connection, what can be asked.

#![forbid(unsafe_code)]

/// What a look at some text found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// A bracket, a comment or a text in backticks is open.
    pub(crate) is_open: bool,
    /// What stands at the end is within a text or a comment.
    pub(crate) is_quoted: bool,
    /// On one line, without comments to the end of a line. A text in quotes that goes over lines keeps their ends, for it
    /// is none.
    pub(crate) line: String,
    /// Variables that are bound outside of all brackets, each with what its value begins with.
    pub(crate) bound: Vec<(String, String)>,
}

enum Inside {
    Bracket(char),
    /// `${` in backticks.
    Interpolation,
    Backticks,
}

impl Scan {
    pub(crate) fn of(text: &str) -> Scan {
        let chars: Vec<char> = text.chars().collect();
        let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
        let mut scan = Scan::default();
        let mut inside: Vec<Inside> = Vec::new();
        // Code outside of all brackets, a blank for everything else.
        let mut top = String::new();
        let mut i = 0;
        while i < chars.len() {
            let c = chars[i];
            if let Some(Inside::Backticks) = inside.last() {
                match c {
                    '`' => _ = inside.pop(),
                    '$' if at(i + 1) == '{' => {
                        inside.push(Inside::Interpolation);
                        scan.line.push(c);
                        i += 1;
                    }
                    _ => {}
                }
                match chars[i] {
                    '\n' => scan.line.push_str("${\"\\n\"}"),
                    c => scan.line.push(c),
                }
                i += 1;
                continue;
            }
            let (begin, was_outside) = (i, inside.is_empty());
            match c {
                '/' if at(i + 1) == '/' => {
                    while i < chars.len() && at(i) != '\n' {
                        i += 1;
                    }
                    scan.is_quoted = i == chars.len();
                    continue;
                }
                '/' if at(i + 1) == '*' => {
                    let mut depth = 0;
                    while i < chars.len() {
                        match (at(i), at(i + 1)) {
                            ('/', '*') => (depth, i) = (depth + 1, i + 2),
                            ('*', '/') => (depth, i) = (depth - 1, i + 2),
                            _ => i += 1,
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                    scan.is_open |= depth > 0;
                    scan.is_quoted = depth > 0;
                    scan.line.push(' ');
                    continue;
                }
                '"' | '\'' => {
                    i += 1;
                    while i < chars.len() && at(i) != c {
                        i += if at(i) == '\\' { 2 } else { 1 };
                    }
                    scan.is_quoted = i >= chars.len();
                }
                '#' => {
                    let hashes = (i..chars.len()).take_while(|k| at(*k) == '#').count();
                    if at(i + hashes) == '"' {
                        let closes = |k: usize| at(k) == '"' && (1..=hashes).all(|h| at(k + h) == '#');
                        let end = (i + hashes + 1..chars.len()).find(|k| closes(*k));
                        scan.is_open |= end.is_none();
                        scan.is_quoted = end.is_none();
                        i = end.map_or(chars.len(), |end| end + hashes);
                    }
                }
                '`' => inside.push(Inside::Backticks),
                '(' => inside.push(Inside::Bracket(')')),
                '[' => inside.push(Inside::Bracket(']')),
                '{' => inside.push(Inside::Bracket('}')),
                '}' if matches!(inside.last(), Some(Inside::Interpolation)) => _ = inside.pop(),
                ')' | ']' | '}' if matches!(inside.last(), Some(Inside::Bracket(close)) if *close == c) => {
                    _ = inside.pop();
                }
                _ => {}
            }
            let end = (i + 1).min(chars.len());
            if begin + 1 == end {
                scan.line.push(if c == '\n' { ' ' } else { c });
                top.push(if was_outside || inside.is_empty() { c } else { ' ' });
            } else {
                scan.line.extend(&chars[begin..end]);
                top.push('"');
            }
            i += 1;
        }
        scan.is_open |= !inside.is_empty();
        scan.is_quoted |= matches!(inside.last(), Some(Inside::Backticks));
        scan.bound = bound(&top);
        scan
    }
}

/// `let name = tasks` in code without what stands in brackets.
fn bound(code: &str) -> Vec<(String, String)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = code
        .split_inclusive(|c: char| !is_part(c))
        .flat_map(|piece| {
            let end = piece.find(|c: char| !is_part(c)).unwrap_or(piece.len());
            let (word, sign) = piece.split_at(end);
            [word, sign]
        })
        .filter(|piece| !piece.trim().is_empty())
        .peekable();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        if !matches!(word, "let" | "const") {
            continue;
        }
        let Some(name) = words.next_if(|name| name.starts_with(|c: char| c.is_alphabetic() || c == '_')) else {
            continue;
        };
        let value = words.next_if_eq(&"=").and_then(|_| words.peek().copied()).unwrap_or_default();
        found.push((name.to_owned(), value.to_owned()));
    }
    found
}

/// Whether something follows the bracket that `rest` begins with: `().len()`, not `(17)`. So the server tells expressions
/// from commands with a command's name.
pub(crate) fn goes_on(rest: &str) -> bool {
    let rest = rest.trim();
    if !rest.starts_with('(') {
        return false;
    }
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in rest.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) => quote = if c == open { None } else { quote },
            None => match c {
                '"' | '\'' | '`' => quote = Some(c),
                '(' => depth += 1,
                ')' => {
                    depth -= 1;
                    if depth == 0 {
                        return at + 1 < rest.len();
                    }
                }
                _ => {}
            },
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_goes_on_and_becomes_one_line() {
        for text in ["tasks().filter(|t|", "[1,\n2", "#{a: 1", "/* x", "`a", "`a ${b", "#\"x", "f(\")\""] {
            assert!(Scan::of(text).is_open, "{text:?}");
        }
        for (text, line) in [
            ("tasks()\n  .len()", "tasks()   .len()"),
            ("[1, // one (\n2]", "[1,  2]"),
            ("a /* ( \n /* ) */ */ + b", "a   + b"),
            ("`a\nb ${`c\n`}`", "`a${\"\\n\"}b ${`c${\"\\n\"}`}`"),
            ("\"(\\\"[\" + '('", "\"(\\\"[\" + '('"),
            ("#\"(\"# + x", "#\"(\"# + x"),
            ("a)", "a)"),
        ] {
            let scan = Scan::of(text);
            assert_eq!((scan.is_open, scan.line.as_str()), (false, line), "{text:?}");
        }
        for (text, quoted) in
            [("f(\"ta", true), ("f(\"ta\"", false), ("x // ta", true), ("`${ta", false), ("`ta", true)]
        {
            assert_eq!(Scan::of(text).is_quoted, quoted, "{text:?}");
        }
    }

    #[test]
    fn variables_of_the_outermost_level_are_found_with_their_beginning() {
        let bound = |text: &str| Scan::of(text).bound;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(bound("let ts = tasks().filter(|t| { let x = 1; x > 0 })"), [pair("ts", "tasks")]);
        assert_eq!(
            bound("let a = 1; let b; const c=[2]; outlet d = 3"),
            [pair("a", "1"), pair("b", ""), pair("c", "[")]
        );
        assert_eq!(bound("\"let x = 1\"; let"), []);
    }

    #[test]
    fn a_command_whose_answer_is_used_is_an_expression() {
        for (rest, is) in [("().len()", true), ("(17)", false), (" 17", false), ("(\")\") .x", true), ("(17", false)] {
            assert_eq!(goes_on(rest), is, "{rest:?}");
        }
    }
}
