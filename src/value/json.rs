//! JSON (RFC 8259) into values, for whoever is given some.
//!
//! Invariants: it reads and never runs anything; depth and number of values are bounded.
//!
//! Must not know: who asks.

#![forbid(unsafe_code)]

use super::Value;

/// Values nested deeper are refused.
const DEEPEST: usize = 32;

/// The value that `text` says, with at most so many values in it.
pub(crate) fn parse(text: &str, most: usize) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0, left: most };
    let value = reader.value(0)?;
    reader.space();
    if reader.at < text.len() { Err(reader.wrong("something follows the value")) } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    left: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> String {
        format!("{what}, at byte {}", self.at)
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Whether `byte` comes next, which then has been read.
    fn comes(&mut self, byte: u8) -> bool {
        let comes = self.next() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        self.space();
        if depth > DEEPEST {
            return Err(self.wrong("nested too deep"));
        }
        if self.left == 0 {
            return Err(self.wrong("too many values"));
        }
        self.left -= 1;
        match self.next() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [("null", Value::Nothing), ("true", Value::Bool(true)), ("false", Value::Bool(false))];
                let rest = &self.text[self.at..];
                match words.into_iter().find(|(word, _)| rest.starts_with(word)) {
                    Some((word, value)) => {
                        self.at += word.len();
                        Ok(value)
                    }
                    None => Err(self.wrong("no value")),
                }
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut list = Vec::new();
        self.space();
        if self.comes(b']') {
            return Ok(Value::List(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            self.space();
            if self.comes(b']') {
                return Ok(Value::List(list));
            }
            if !self.comes(b',') {
                return Err(self.wrong("no comma or ]"));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut map = Vec::new();
        self.space();
        if self.comes(b'}') {
            return Ok(Value::Map(map));
        }
        loop {
            self.space();
            if self.next() != Some(b'"') {
                return Err(self.wrong("no name in quotes"));
            }
            let name = self.string()?;
            self.space();
            if !self.comes(b':') {
                return Err(self.wrong("no colon"));
            }
            map.push((name, self.value(depth + 1)?));
            self.space();
            if self.comes(b'}') {
                return Ok(Value::Map(map));
            }
            if !self.comes(b',') {
                return Err(self.wrong("no comma or }"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let number = &rest[..end];
        let digits = number.strip_prefix('-').unwrap_or(number);
        let leading = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        let ends_well = number.ends_with(|c: char| c.is_ascii_digit());
        let begins_well =
            digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.contains(".e") && !digits.contains(".E");
        if leading || !ends_well || !begins_well {
            return Err(self.wrong("no number"));
        }
        let value = match number.parse::<i64>() {
            Ok(n) => Value::Int(n),
            Err(_) => Value::Float(number.parse().map_err(|_| self.wrong("no number"))?),
        };
        self.at += end;
        Ok(value)
    }

    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let end = rest.find(['"', '\\']).ok_or_else(|| self.wrong("a text without end"))?;
            if let Some(control) = rest[..end].find(|c: char| c < ' ') {
                self.at += control;
                return Err(self.wrong("a control character in a text"));
            }
            out.push_str(&rest[..end]);
            self.at += end + 1;
            if rest.as_bytes()[end] == b'"' {
                return Ok(out);
            }
            out.push(self.escape()?);
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char, String> {
        let byte = self.next();
        self.at += usize::from(byte.is_some_and(|b| b.is_ascii()));
        Ok(match byte {
            Some(c @ (b'"' | b'\\' | b'/')) => c.into(),
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.unit()?;
                let units = if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    vec![first, self.unit()?]
                } else {
                    vec![first]
                };
                let mut decoded = char::decode_utf16(units);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(c)), None) => c,
                    _ => return Err(self.wrong("half a character")),
                }
            }
            _ => return Err(self.wrong("no such escape")),
        })
    }

    /// Four digits.
    fn unit(&mut self) -> Result<u16, String> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|d| u16::from_str_radix(d, 16).ok()).ok_or_else(|| self.wrong("no four digits"))?;
        self.at += 4;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_is_read() {
        let text = r#" {"a": [1, -2.5e1, true, null, "ü\n\u00e9\ud83d\ude00"], "b": {}, "c": [], "big": 9223372036854775808} "#;
        let list = vec![Value::Int(1), Value::Float(-25.0), Value::Bool(true), Value::Nothing, Value::of("ü\né😀")];
        let wanted = Value::map([
            ("a", Value::List(list)),
            ("b", Value::Map(vec![])),
            ("c", Value::List(vec![])),
            ("big", Value::Float(9_223_372_036_854_775_808.0)),
        ]);
        assert_eq!(parse(text, 100), Ok(wanted));
    }

    #[test]
    fn and_nothing_else() {
        for text in [
            "",
            "[1,]",
            "{\"a\":1,}",
            "{a: 1}",
            "01",
            "1.",
            "-",
            "+1",
            "1.e3",
            "--1",
            "1 2",
            "tru",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12",
            "\"\\ü\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "[1",
            "NaN",
            "f()",
            "\"a",
            "'a'",
            "[1] // x",
        ] {
            assert!(parse(text, 100).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(10_000), 100_000).is_err_and(|e| e.contains("too deep")));
        assert!(parse("[1,2,3]", 3).is_err_and(|e| e.contains("too many")));
        assert!(parse("[1,2,3]", 4).is_ok());
    }
}
