//! Functions of the expression language, by name and number of arguments: where it has one for the very types of a call, it is found
//! before the program's, which takes any.
//!
//! Left out are those that take what no function of the program can be given (ranges, functions), or anything: there the
//! program's is found first.
//!
//! Must not know: the engine. A program without it keeps to the same names.

#![forbid(unsafe_code)]

/// In the order of their names.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[(&str, &[usize])] = &[
    ("E", &[0]), ("PI", &[0]), ("abs", &[1]), ("acos", &[1]),
    ("acosh", &[1]), ("all", &[2]), ("append", &[2]), ("asin", &[1]),
    ("asinh", &[1]), ("atan", &[1, 2]), ("atanh", &[1]), ("bits", &[1, 2, 3]),
    ("bytes", &[1]), ("ceiling", &[1]), ("chars", &[1, 2, 3]), ("chop", &[2]),
    ("clear", &[1]), ("contains", &[2]), ("cos", &[1]), ("cosh", &[1]),
    ("crop", &[2, 3]), ("dedup", &[1, 2]), ("drain", &[2, 3]), ("ends_with", &[2]),
    ("exp", &[1]), ("extract", &[2, 3]), ("fill_with", &[2]), ("filter", &[2]),
    ("find", &[2, 3]), ("find_map", &[2, 3]), ("floor", &[1]), ("for_each", &[2]),
    ("fraction", &[1]), ("get", &[2]), ("hypot", &[2]), ("index_of", &[2, 3]),
    ("insert", &[3]), ("int", &[1]), ("is_empty", &[1]), ("is_even", &[1]),
    ("is_finite", &[1]), ("is_infinite", &[1]), ("is_nan", &[1]), ("is_odd", &[1]),
    ("is_zero", &[1]), ("keys", &[1]), ("len", &[1]), ("ln", &[1]),
    ("log", &[1, 2]), ("make_lower", &[1]), ("make_upper", &[1]), ("map", &[2]),
    ("max", &[2]), ("min", &[2]), ("mixin", &[2]), ("order", &[1, 2]),
    ("order_by", &[2]), ("order_desc", &[1]), ("pad", &[3]), ("parse_float", &[1]),
    ("parse_int", &[1, 2]), ("parse_json", &[1]), ("pop", &[1, 2]), ("push", &[2]),
    ("range", &[2, 3]), ("reduce", &[2, 3]), ("reduce_rev", &[2, 3]), ("remove", &[2]),
    ("replace", &[3]), ("retain", &[2, 3]), ("reverse", &[1]), ("round", &[1]),
    ("set", &[3]), ("shift", &[1]), ("sign", &[1]), ("sin", &[1]),
    ("sinh", &[1]), ("some", &[2]), ("sort", &[1, 2]), ("sort_by", &[2]),
    ("sort_desc", &[1]), ("splice", &[3, 4]), ("split", &[1, 2, 3]), ("split_rev", &[2, 3]),
    ("sqrt", &[1]), ("starts_with", &[2]), ("sub_string", &[2, 3]), ("tan", &[1]),
    ("tanh", &[1]), ("to_binary", &[1]), ("to_blob", &[1]), ("to_chars", &[1]),
    ("to_debug", &[1]), ("to_degrees", &[1]), ("to_float", &[1]), ("to_hex", &[1]),
    ("to_int", &[1]), ("to_json", &[1]), ("to_lower", &[1]), ("to_octal", &[1]),
    ("to_radians", &[1]), ("to_string", &[1]), ("to_upper", &[1]), ("trim", &[1]),
    ("truncate", &[2]), ("values", &[1]), ("zip", &[3]),
];

#[cfg(all(test, feature = "script"))]
mod tests {
    use super::FUNCTIONS;

    /// Each with values of the types that the engine's own functions take first.
    #[test]
    fn the_engine_has_what_is_listed() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut engine = rhai::Engine::new();
        engine.set_max_operations(10_000);
        let given = ["[1, 2]", "\"ab\"", "#{a: 1}", "1", "1.5", "'c'", "|x| 1", "0..1"];
        let rest = ["", "1", "\"a\"", "'a'", "|x| 1", "[1]", "1.5", "#{}", "0..1"];
        for (name, widths) in FUNCTIONS {
            for width in *widths {
                let calls = given.iter().flat_map(|first| rest.iter().map(move |other| (first, other)));
                let found = calls.into_iter().any(|(first, other)| {
                    let more = match width {
                        0 => String::new(),
                        1 => (*first).to_owned(),
                        2 => format!("{first}, {other}"),
                        3 if *name == "replace" => format!("{first}, {other}, {other}"),
                        3 if matches!(*name, "zip" | "reduce" | "reduce_rev") => format!("{first}, {other}, |x| 1"),
                        3 => format!("{first}, {other}, 1"),
                        _ => format!("{first}, 0, 1, {other}"),
                    };
                    let result = engine.eval::<rhai::Dynamic>(&format!("let f = {name}({more});"));
                    !matches!(result, Err(e) if matches!(*e, rhai::EvalAltResult::ErrorFunctionNotFound(..)))
                });
                assert!(found, "{name} with {width}");
            }
        }
    }
}
