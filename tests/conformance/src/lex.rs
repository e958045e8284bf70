//! Just enough of Rust's lexical rules to find paths in a source text: names, punctuation, and what is neither.
//!
//! Must not know what a path means; `rewrite` does.

use std::ops::Range;

/// What a token is, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name or keyword; raw names keep their `r#`.
    Name,
    /// `::`
    Path,
    /// Any other single character of punctuation.
    Mark(char),
    /// A literal or a lifetime.
    Literal,
}

/// A token and where it stands in the text, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub at: Range<usize>,
}

/// The tokens of `text`, without white space and comments.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = Cursor { text, at: 0 };
    while let Some(c) = rest.peek(0) {
        let start = rest.at;
        let kind = match c {
            _ if c.is_whitespace() => {
                rest.bump();
                continue;
            }
            '/' if rest.peek(1) == Some('/') => {
                rest.skip_while(|c| c != '\n');
                continue;
            }
            '/' if rest.peek(1) == Some('*') => {
                rest.block_comment();
                continue;
            }
            '"' => {
                rest.string();
                Kind::Literal
            }
            '\'' => {
                rest.quote();
                Kind::Literal
            }
            _ if c.is_ascii_digit() => {
                rest.skip_while(in_name);
                Kind::Literal
            }
            _ if in_name(c) => {
                rest.skip_while(in_name);
                rest.prefixed(&text[start..rest.at])
            }
            ':' if rest.peek(1) == Some(':') => {
                rest.bump();
                rest.bump();
                Kind::Path
            }
            _ => {
                rest.bump();
                Kind::Mark(c)
            }
        };
        out.push(Token { kind, at: start..rest.at });
    }
    out
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self, n: usize) -> Option<char> {
        self.text[self.at..].chars().nth(n)
    }

    fn bump(&mut self) {
        self.at += self.peek(0).map_or(0, char::len_utf8);
    }

    fn skip_while(&mut self, want: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&want) {
            self.bump();
        }
    }

    /// After a name: it may be the prefix of a literal (`b"…"`, `r#"…"#`, `b'…'`) or of a raw name.
    fn prefixed(&mut self, name: &str) -> Kind {
        let raw = matches!(name, "r" | "br" | "cr");
        match self.peek(0) {
            Some('"') if matches!(name, "b" | "c") => self.string(),
            Some('\'') if name == "b" => self.quote(),
            Some('"') if raw => self.raw_string(0),
            Some('#') if raw => {
                let hashes = self.text[self.at..].chars().take_while(|c| *c == '#').count();
                if self.peek(hashes) != Some('"') {
                    self.bump();
                    self.skip_while(in_name);
                    return Kind::Name;
                }
                self.raw_string(hashes);
            }
            _ => return Kind::Name,
        }
        Kind::Literal
    }

    fn raw_string(&mut self, hashes: usize) {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = self.at + hashes + 1;
        self.at = self.text[body..].find(&end).map_or(self.text.len(), |n| body + n + end.len());
    }

    fn string(&mut self) {
        self.until('"');
    }

    /// A character or a lifetime: only a character has a second quote right behind it.
    fn quote(&mut self) {
        if self.peek(1) == Some('\\') || self.peek(2) == Some('\'') {
            self.until('\'');
        } else {
            self.bump();
            self.skip_while(in_name);
        }
    }

    /// From an opening quote to behind its closing one.
    fn until(&mut self, close: char) {
        self.bump();
        while let Some(c) = self.peek(0) {
            self.bump();
            match c {
                '\\' => self.bump(),
                _ if c == close => return,
                _ => {}
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            let two = (self.peek(0), self.peek(1));
            match two {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                _ => {
                    self.bump();
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|t| &text[t.at]).collect()
    }

    #[test]
    fn paths_and_names() {
        assert_eq!(shown("use ::std::a_1;"), ["use", "::", "std", "::", "a_1", ";"]);
        assert_eq!(shown("x: ::y"), ["x", ":", "::", "y"]);
        assert_eq!(shown("$crate::r#fn!"), ["$", "crate", "::", "r#fn", "!"]);
    }

    #[test]
    fn literals_are_whole() {
        assert_eq!(shown(r#"f("std::\"x", b"y\\", 'q', '\'', b'\n')"#).len(), 12);
        assert_eq!(shown(r##"r#"a " std::"# br"b\" c"##), [r##"r#"a " std::"#"##, r#"br"b\""#, "c"]);
        assert_eq!(shown("&'a str, 0..10, 1_u8"), ["&", "'a", "str", ",", "0", ".", ".", "10", ",", "1_u8"]);
    }

    #[test]
    fn comments_are_nothing() {
        assert_eq!(shown("a // std::b\n/* std::c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(shown("/* open"), [""; 0]);
    }

    #[test]
    fn text_that_ends_inside_a_literal_ends() {
        for text in ["\"", "'\\", "r#\"", "b\"\\", "'"] {
            tokens(text);
        }
    }
}
