//! Finds names of Jobs that a repeated request would not get again: those that depend on the clock, on randomness, or on the host's name. Two Jobs
//! for one request would be the result.
//!
//! A sketch of the data flow, for a warning: what is bound, defined or passed is followed by name, whatever its scope.

use super::syntax::{Term, parts, plain};
use jaq_core::load::parse::{BinaryOp, Def, Pattern};
use jaq_core::path::Part as PathPart;
use std::collections::HashMap;

/// What a value depends on.
type Why = &'static str;

const CLOCK: Why = "the clock (now)";
const RANDOM: Why = "randomness (cuid2)";
const HOST: Why = "the host's name (HOSTNAME)";

/// Names of variables and definitions whose values depend on such a thing.
type Unstable = HashMap<String, Why>;

/// Of definitions, by their names.
type Parameters = HashMap<String, Vec<String>>;

/// Why `metadata.name` is not the same each time; None if nothing is known against it. `trees`: the main program, then its modules.
pub(super) fn unstable_name(trees: &mut [Term<'_>]) -> Option<Why> {
    let mut unstable = Unstable::new();
    let mut parameters = Parameters::new();
    trees.iter_mut().for_each(|tree| collect_parameters(tree, &mut parameters));
    // what depends on something else may stand before it
    loop {
        let before = unstable.len();
        trees.iter_mut().for_each(|tree| collect(tree, &parameters, &mut unstable));
        if unstable.len() == before {
            break;
        }
    }
    trees.iter_mut().find_map(|tree| name_in(tree, &unstable))
}

fn collect_parameters(term: &mut Term<'_>, parameters: &mut Parameters) {
    if let Term::Def(definitions, _) = term {
        for Def { name, args, .. } in definitions {
            parameters.insert((*name).to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect());
        }
    }
    parts(term).into_iter().for_each(|part| collect_parameters(part, parameters))
}

/// Adds the variables and definitions of a term that depend on something unstable.
fn collect(term: &mut Term<'_>, parameters: &Parameters, unstable: &mut Unstable) {
    let (mut bound, mut why) = (Vec::new(), None);
    match term {
        Term::BinOp(left, BinaryOp::Pipe(Some(pattern)), _) => {
            why = why_of(left, unstable);
            bound = variables(pattern)
        }
        Term::Fold(_, source, pattern, _) => {
            why = why_of(source, unstable);
            bound = variables(pattern)
        }
        Term::Def(definitions, _) => {
            for Def { name, body, .. } in definitions {
                if let Some(why) = why_of(body, unstable) {
                    unstable.entry((*name).to_owned()).or_insert(why);
                }
            }
        }
        Term::Call(name, args) => {
            let names = parameters.get(name.rsplit("::").next().unwrap_or(name));
            for (name, arg) in names.into_iter().flatten().zip(args) {
                if let Some(why) = why_of(arg, unstable) {
                    // a parameter `$x` is `x` too
                    for name in [&name[..], name.trim_start_matches('$')] {
                        unstable.entry(name.to_owned()).or_insert(why);
                    }
                }
            }
        }
        _ => (),
    }
    if let Some(why) = why {
        bound.into_iter().for_each(|name| _ = unstable.entry(name).or_insert(why))
    }
    parts(term).into_iter().for_each(|part| collect(part, parameters, unstable))
}

fn variables(pattern: &Pattern<&str>) -> Vec<String> {
    match pattern {
        Pattern::Var(name) => vec![(*name).to_owned()],
        Pattern::Arr(all) => all.iter().flat_map(variables).collect(),
        Pattern::Obj(pairs) => pairs.iter().flat_map(|(_, part)| variables(part)).collect(),
    }
}

/// What unstable thing a term depends on.
fn why_of(term: &mut Term<'_>, unstable: &Unstable) -> Option<Why> {
    let why = match term {
        Term::Call("now", _) => Some(CLOCK),
        Term::Call("cuid2", _) => Some(RANDOM),
        Term::Call(name, _) => unstable.get(name.rsplit("::").next().unwrap_or(name)).copied(),
        Term::Var(name) => unstable.get(*name).copied(),
        Term::Path(from, path) if matches!(**from, Term::Var("$ENV") | Term::Call("env", _)) => {
            let is_host = |part: &PathPart<Term<'_>>| matches!(part, PathPart::Index(key) if plain(key).as_deref() == Some("HOSTNAME"));
            path.0.iter().any(|(part, _)| is_host(part)).then_some(HOST)
        }
        _ => None,
    };
    why.or_else(|| parts(term).into_iter().find_map(|part| why_of(part, unstable)))
}

/// Why a `metadata.name` within a term is unstable. Templates of pods have metadata too, which are passed over.
fn name_in(term: &mut Term<'_>, unstable: &Unstable) -> Option<Why> {
    match term {
        Term::Obj(pairs) => pairs.iter_mut().find_map(|(key, value)| {
            let value = value.as_mut()?;
            match plain(key).as_deref() {
                Some("metadata") => name_of(value, unstable),
                Some("template") => None,
                _ => name_in(value, unstable),
            }
        }),
        Term::BinOp(
            left,
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt,
            right,
        ) => {
            let Term::Path(_, path) = &mut **left else { return name_in(right, unstable) };
            let key = |(part, _): &(PathPart<Term<'_>>, _)| match part {
                PathPart::Index(key) => plain(key),
                PathPart::Range(..) => None,
            };
            let keys: Vec<_> = path.0.iter().map(|part| key(part).unwrap_or_default()).collect();
            match keys.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["metadata", "name"] => why_of(right, unstable),
                ["metadata"] => name_of(right, unstable),
                _ => None,
            }
        }
        term => parts(term).into_iter().find_map(|part| name_in(part, unstable)),
    }
}

/// Why the member `name` of an object is unstable.
fn name_of(term: &mut Term<'_>, unstable: &Unstable) -> Option<Why> {
    match term {
        Term::Obj(pairs) => pairs.iter_mut().find_map(|(key, value)| match plain(key).as_deref() {
            Some("name") => why_of(value.as_mut()?, unstable),
            _ => None,
        }),
        term => parts(term).into_iter().find_map(|part| name_of(part, unstable)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::syntax::tree;
    use super::*;
    use jaq_core::load::lex::Lexer;

    fn unstable(sources: &[&str]) -> Option<Why> {
        let lexed: Vec<_> = sources.iter().map(|code| Lexer::new(code).lex().unwrap()).collect();
        let trees = lexed.iter().enumerate().map(|(number, tokens)| tree(tokens, number == 0).unwrap());
        unstable_name(&mut trees.collect::<Vec<_>>())
    }

    #[test]
    fn unstable_names_are_found() {
        for (code, why) in [
            (r#"{metadata: {name: "job-\(now | floor)"}}"#, CLOCK),
            (r#"{metadata: {name: "job-\(cuid2)"}, spec: {}}"#, RANDOM),
            (r#"{"metadata": {"name": ("a-" + $ENV.HOSTNAME)}}"#, HOST),
            (r#"{metadata: {name: env.HOSTNAME}}"#, HOST),
            (r#"{metadata: {name: $ENV["HOSTNAME"]}}"#, HOST),
            (r#"now as $t | .id as $id | {metadata: {labels: {}, name: "a-\($t)"}}"#, CLOCK),
            (r#"cuid2 as $name | {metadata: {$name}}"#, RANDOM),
            (r#"def stamp: now | todate; def name: "a-\(stamp)"; {metadata: {name: name}}"#, CLOCK),
            (r#"{spec: {}} | .metadata.name = "a-\(now)""#, CLOCK),
            (r#".metadata |= {name: cuid2}"#, RANDOM),
            (r#".metadata += (if .x then {name: "x"} else {name: cuid2} end)"#, RANDOM),
            (r#"if .a then {metadata: {name: "a"}} else {metadata: {name: now | tostring}} end"#, CLOCK),
            (r#"def job($name): {metadata: {name: $name}}; job("x-\(now)")"#, CLOCK),
            (r#"def job(name): {metadata: {name: name}}; job("x-\(cuid2)")"#, RANDOM),
            (r#"include "lib"; import "x" as x; {metadata: {name: x::of_lib}}"#, CLOCK),
        ] {
            let lib = "def of_lib: now;";
            assert_eq!(unstable(&[code, lib]), Some(why), "{code}");
        }
    }

    #[test]
    fn stable_names_are_left_alone() {
        for code in [
            r#"{metadata: {name: "job-\(.id)", labels: {at: now, host: $ENV.HOSTNAME}}}"#,
            r#"{metadata: {generateName: "a-"}, spec: {at: now}}"#,
            r#"{metadata: {name: "a"}, spec: {template: {metadata: {name: cuid2}}}}"#,
            r#".metadata.name = "a-\(.id)" | .metadata.annotations.at = now"#,
            r#"{metadata: {name: "job-\($ENV.PREFIX)-\($REQUEST.headers["x-github-delivery"])"}}"#,
            r#"."#,
            r#"{metadata: {name: .HOSTNAME}}"#,
            include_str!("../default.jq"),
        ] {
            assert_eq!(unstable(&[code]), None, "{code}");
        }
    }
}
