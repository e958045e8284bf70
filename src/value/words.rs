//! How alike two words are, for whoever has mistyped one.

#![forbid(unsafe_code)]

/// So many letters have to be changed, put in or left out to make one text of the other (Levenshtein), one row at a time.
pub(crate) fn edits(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let mut costs: Vec<usize> = (0..=from.len()).collect();
    for (row, wanted) in to.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut costs[0], row + 1);
        for (column, &given) in from.iter().enumerate() {
            let change = diagonal + usize::from(given != wanted);
            diagonal = costs[column + 1];
            costs[column + 1] = change.min(diagonal + 1).min(costs[column] + 1);
        }
    }
    costs[from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_differ_by_letters() {
        let pairs = [("get", "get", 0), ("get", "gte", 2), ("", "ab", 2), ("ab", "", 2), ("kitten", "sitting", 3)];
        for (from, to, expected) in pairs.into_iter().chain([("grün", "grun", 1)]) {
            assert_eq!((edits(from, to), edits(to, from)), (expected, expected), "{from} and {to}");
        }
    }
}
