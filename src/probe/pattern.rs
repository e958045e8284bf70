//! Which points are meant.

#![forbid(unsafe_code)]

use crate::observe::Point;
use crate::value::edits;

/// What the points of this crate's own begin with.
const OWN: &str = "coro::";

/// Whether it is a point of the program, and not one of this crate's own.
pub(super) fn is_of_program(point: &Point) -> bool {
    !point.name().starts_with(OWN)
}

/// Whether a pattern names that point: the whole path or its end (`cache::get` for `app::cache::get`), with `*` for anything. Points
/// of this crate's own are named only by patterns that begin as they do, so that `*` is the program and nothing else. With `|` between
/// them a pattern is several.
pub(super) fn names(pattern: &str, point: &Point) -> bool {
    pattern.split('|').any(|pattern| {
        let meant = is_of_program(point) || pattern.starts_with(OWN);
        meant && path_fits(pattern, point.name())
    })
}

fn path_fits(pattern: &str, path: &str) -> bool {
    let ends = path.match_indices("::").map(|(at, _)| &path[at + 2..]);
    std::iter::once(path).chain(ends).any(|end| fits(pattern.as_bytes(), end.as_bytes()))
}

/// `*` stands for any text, everything else for itself.
pub(super) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go back to: behind the last star, and how much of the text that has taken.
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            (p, t) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Points whose names are most like a pattern that names none, for whoever has mistyped it.
pub(super) fn nearest<'a>(pattern: &str, points: impl Iterator<Item = &'a Point>) -> Vec<&'a str> {
    let word = pattern.rsplit("::").next().unwrap_or(pattern).trim_matches('*').to_lowercase();
    // This crate's own are never named by a pattern that does not begin so.
    let mut found: Vec<(usize, &str)> = points
        .filter(|point| is_of_program(point) || pattern.starts_with("coro"))
        .map(|point| point.name())
        .map(|name| {
            let last = name.rsplit("::").next().unwrap_or(name).to_lowercase();
            (edits(&word, &last), name)
        })
        .collect();
    found.sort();
    found.dedup();
    let close = |distance: usize| distance <= word.len().div_ceil(2);
    found.into_iter().filter(|(distance, _)| close(*distance)).take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_paths_and_their_ends() {
        for (pattern, path, fits) in [
            ("app::cache::get", "app::cache::get", true),
            ("cache::get", "app::cache::get", true),
            ("get", "app::cache::get", true),
            ("et", "app::cache::get", false),
            ("app::*", "app::cache::get", true),
            ("*", "get", true),
            ("*get*", "app::cache::forget_me", true),
            ("cache::*", "app::cache::get", true),
            ("cache::*", "app::net::get", false),
            ("app::*::get", "app::a::b::get", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "app", false),
        ] {
            assert_eq!(path_fits(pattern, path), fits, "{pattern} for {path}");
        }
    }
}
