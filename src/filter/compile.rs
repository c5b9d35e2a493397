//! Compiles filter source: as it is written, then again with what is constant computed.

use super::checks::{check_paths, check_regexes};
use super::data::Data;
use super::fold::{Folded, fold};
use super::layout::Layout;
use super::limits::Tokens;
use super::load::{Diagnostics, MAX_SOURCE, Source, at, load_and_compile};
use super::natives::INSTEAD_OF_DEFINITIONS;
use super::rewrite::{Names, collect_names, rewrite};
use super::syntax::{Term, each, tree};
use super::unstable::unstable_name;
use super::value::Value;
use crate::hash::{Sha256, hex};
use jaq_core::load::lex::Lexer;
use jaq_core::load::parse::Def;
use jaq_core::load::{self, Arena, File};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Stack for compiling. Only touched pages become resident, and it is freed before the first request.
const STACK: usize = 256 << 20;

/// Bytes of a digest that are shown: enough to tell filters apart.
const DIGEST: usize = 6;

/// What a filter sees beside its input.
pub(super) const VARIABLES: [&str; 3] = ["$ENV", "$PATH", "$REQUEST"];

/// A compiled program, and facts about its sources.
pub(super) struct Compiled {
    pub(super) filter: jaq_core::Filter<Data>,
    /// Whether `$REQUEST` is mentioned at all.
    pub(super) wants_request: bool,
    /// Values of the variables behind [`VARIABLES`].
    pub(super) constants: Vec<Value>,
    /// After partial evaluation: each output is `[LAYOUT, VALUE, ...]`, or `[OUTPUT]`.
    pub(super) layouts: Option<Vec<Layout>>,
    /// Why `metadata.name` is not the same each time.
    pub(super) unstable_name: Option<&'static str>,
    /// Of all sources.
    pub(super) digest: String,
}

/// `members`: of outputs, whose places are wanted; None forbids partial evaluation.
///
/// Errors: one text with all errors of all sources.
pub(super) fn compile(source: Source<'_>, members: Option<&[&[&str]]>) -> Result<Compiled, String> {
    std::thread::scope(|scope| {
        let big = std::thread::Builder::new().name("compile".into()).stack_size(STACK);
        let thread = big.spawn_scoped(scope, || compile_here(source, members));
        let thread = thread.map_err(|error| format!("{}: cannot start a thread: {error}\n", source.name))?;
        thread.join().map_err(|_| format!("{}: the compiler gave up\n", source.name))?
    })
}

fn compile_here(source: Source<'_>, members: Option<&[&[&str]]>) -> Result<Compiled, String> {
    if source.code.len() > MAX_SOURCE {
        return Err(format!("{}: longer than {MAX_SOURCE} bytes\n", source.name));
    }
    let mut tokens = Tokens::default();
    check_limits(&mut tokens, source.code, Path::new(source.name))?;
    // once as it is written, for errors that point to the right place
    let mut sources = vec![(PathBuf::from(source.name), source.code.to_owned())];
    let mut inspect = |code: String, path: &Path| {
        tokens.add(&code).map_err(|(_, why)| why)?;
        sources.push((path.to_owned(), code.clone()));
        Ok(code)
    };
    let prelude = prelude();
    let plain = load_and_compile(source, source.code, prelude.clone(), &VARIABLES, &mut inspect)?;
    let lexed: Vec<_> = sources.iter().map(|(_, code)| Lexer::new(code).lex().unwrap_or_default()).collect();
    let trees = lexed.iter().zip(&sources).enumerate().map(|(number, (tokens, (path, _)))| {
        tree(tokens, number == 0).ok_or_else(|| format!("{}: its imports are not understood\n", path.display()))
    });
    let mut trees = trees.collect::<Result<Vec<Term<'_>>, _>>()?;
    check(&sources, &mut trees)?;
    let unstable_name = unstable_name(&mut trees);
    let mut digest = Sha256::new();
    sources.iter().for_each(|(_, code)| digest.update(code));
    let digest = hex(&digest.finish()[..DIGEST]);

    let mut plain = Some(plain);
    if let Some(members) = members.filter(|_| sources.len() == 1) {
        let arena = Arena::default();
        if let Some(folded) = fold(source.code, &prelude, members, &arena) {
            plain = None; // both together would take twice the memory
            if let Ok(compiled) = compile_folded(folded, prelude.clone()) {
                return Ok(Compiled { unstable_name, digest, ..compiled });
            }
        }
    }

    // once more, rewritten, if that changes anything
    let mut names = Names::new();
    trees.iter_mut().for_each(|tree| collect_names(tree, &mut names));
    let rewritten = |code: &str| rewrite(code, &names).into_owned();
    let filter = match plain {
        Some(plain) if sources.iter().all(|(_, code)| rewritten(code) == *code) => plain,
        plain => {
            drop(plain);
            let main = rewritten(source.code);
            load_and_compile(source, &main, prelude, &VARIABLES, &mut |code, _| Ok(rewritten(&code)))?
        }
    };
    let wants_request = trees.iter_mut().any(mentions_request);
    Ok(Compiled { filter, wants_request, constants: Vec::new(), layouts: None, unstable_name, digest })
}

/// Compiles a program after partial evaluation, as a definition behind those of jaq.
///
/// Errors: it does not compile, which would be a defect of the evaluation; as written it does.
fn compile_folded(folded: Folded<'_>, prelude: Vec<Def<&'static str>>) -> Result<Compiled, String> {
    const MAIN: &str = "__main";
    let source = Source { code: MAIN, name: "", folder: None };
    let main = Def { name: MAIN, args: Vec::new(), body: folded.main };
    let definitions = prelude.into_iter().chain([main]).collect();
    let (names, constants): (Vec<_>, Vec<_>) = folded.constants.into_iter().unzip();
    let variables = [&VARIABLES[..], &names].concat();
    let filter =
        load_and_compile(source, MAIN, definitions, &variables, &mut |_, _| Err("there are no modules".into()))?;
    let (wants_request, layouts) = (folded.wants_request, Some(folded.layouts));
    Ok(Compiled { filter, wants_request, constants, layouts, unstable_name: None, digest: String::new() })
}

fn mentions_request(tree: &mut Term<'_>) -> bool {
    let mut found = false;
    each(tree, &mut |term| found |= matches!(term, Term::Var("$REQUEST" | "$__prog_args")));
    found
}

/// The definitions behind which a program stands: jaq's, then ours.
fn prelude() -> Vec<Def<&'static str>> {
    let ours = load::parse(include_str!("prelude.jq"), |parser| parser.defs()).expect("our own prelude parses");
    let theirs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    theirs.filter(|def| !def.args.is_empty() || !INSTEAD_OF_DEFINITIONS.contains(&def.name)).chain(ours).collect()
}

/// Errors: as of [`at`].
fn check_limits(tokens: &mut Tokens, code: &str, path: &Path) -> Result<(), String> {
    tokens.add(code).map_err(|(offset, why)| {
        let part = &code[code.floor_char_boundary(offset)..];
        at(&File { code, path: path.to_owned() }, part, &why)
    })
}

/// Errors: paths that are too long; regexes that do not compile, as of [`at`].
fn check<'c>(sources: &'c [(PathBuf, String)], trees: &mut [Term<'c>]) -> Result<(), String> {
    let mut defined = HashSet::new();
    for ((path, _), tree) in sources.iter().zip(&mut *trees) {
        check_paths(tree).map_err(|error| format!("{}: {error}\n", path.display()))?;
        each(tree, &mut |term| {
            if let Term::Def(definitions, _) = term {
                defined.extend(definitions.iter().map(|def| def.name))
            }
        })
    }
    let mut diagnostics = Diagnostics::default();
    for ((path, code), tree) in sources.iter().zip(trees) {
        let file = File { code: &code[..], path: path.clone() };
        check_regexes(code, tree, &defined, &mut |part, why| diagnostics.add(&file, part, || why));
    }
    if diagnostics.errors == 0 { Ok(()) } else { Err(diagnostics.into_text()) }
}
