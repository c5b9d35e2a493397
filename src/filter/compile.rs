//! Compiles filter source: reads its modules, and reports every error with file, line, column, source line and a caret.

use super::constants::{check_regexes, collect_defined};
use super::data::Data;
use super::fold::{Folded, fold};
use super::layout::Layout;
use super::limits::Tokens;
use super::natives::{self, INSTEAD_OF_DEFINITIONS};
use super::rewrite::{Names, collect_names, each_block, rewrite};
use super::unstable::unstable_name;
use super::value::Value;
use jaq_core::Compiler;
use jaq_core::load::lex::{Lexer, Token};
use jaq_core::load::parse::Def;
use jaq_core::load::{self, Arena, File, Import, Loader};
use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Bytes of one source: jaq parses recursively, and the stack below is sized for this.
pub(super) const MAX_SOURCE: usize = 1 << 16;
/// Sources of one program.
const MAX_MODULES: usize = 64;
/// Errors that are diagnostics: nobody reads more, and a source of nothing but parentheses has one for each.
const MAX_ERRORS: usize = 100;
/// Characters of the source line that an error shows.
const MAX_EXCERPT: usize = 160;
/// Stack for compiling. Only touched pages become resident, and it is freed before the first request.
const STACK: usize = 256 << 20;

/// What a filter sees beside its input.
pub(super) const VARIABLES: [&str; 3] = ["$ENV", "$PATH", "$REQUEST"];

/// A filter's text and where it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) code: &'a str,
    /// Its name in errors: a path, `<argument>` or `<default>`.
    pub(crate) name: &'a str,
    /// The only folder for modules; None forbids modules.
    pub(crate) folder: Option<&'a Path>,
}

/// A compiled program, and what its sources tell.
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
    // once as it is written, for errors that point to the right place, and to learn which definitions take filters
    let mut names = Names::new();
    collect_names(source.code, &mut names);
    let mut sources = vec![(PathBuf::from(source.name), source.code.to_owned())];
    let mut inspect = |code: String, path: &Path| {
        tokens.add(&code).map_err(|(_, why)| why)?;
        collect_names(&code, &mut names);
        sources.push((path.to_owned(), code.clone()));
        Ok(code)
    };
    let prelude = prelude();
    let plain = load_and_compile(source, source.code, prelude.clone(), &VARIABLES, &mut inspect)?;
    check_constants(&sources)?;
    let unstable_name = unstable_name(sources.iter().map(|(_, code)| &code[..]));
    let rewritten = |code: &str| rewrite(code, &names).map(Cow::into_owned);
    let main = rewritten(source.code).map_err(|error| format!("{}: {error}\n", source.name))?;

    let mut plain = Some(plain);
    if let Some(members) = members.filter(|_| sources.len() == 1) {
        let arena = Arena::default();
        if let Some(folded) = fold(source.code, &prelude, members, &arena) {
            plain = None; // both together would take twice the memory
            if let Ok(compiled) = compile_folded(folded, prelude.clone()) {
                return Ok(Compiled { unstable_name, ..compiled });
            }
        }
    }

    // once more, rewritten, if that changes anything
    let mut is_rewritten = false;
    let mut wants_request = false;
    for (path, code) in &sources {
        is_rewritten |= rewritten(code).map_err(|error| format!("{}: {error}\n", path.display()))? != *code;
        wants_request |= mentions_request(code);
    }
    let filter = match plain {
        Some(plain) if !is_rewritten => plain,
        plain => {
            drop(plain);
            load_and_compile(source, &main, prelude, &VARIABLES, &mut |code, _| rewritten(&code))?
        }
    };
    Ok(Compiled { filter, wants_request, constants: Vec::new(), layouts: None, unstable_name })
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
    Ok(Compiled { filter, wants_request, constants, layouts, unstable_name: None })
}

/// Whether a source mentions `$REQUEST` outside of comments and strings.
fn mentions_request(code: &str) -> bool {
    let mut found = false;
    each_block(&Lexer::new(code).lex().unwrap_or_default(), &mut |block| {
        found |= block.iter().any(|token| matches!(token, Token("$REQUEST" | "$__prog_args", _)))
    });
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

/// Errors: constant regexes that do not compile, as of [`at`].
fn check_constants(sources: &[(PathBuf, String)]) -> Result<(), String> {
    let mut diagnostics = Diagnostics::default();
    let mut defined = HashSet::new();
    sources.iter().for_each(|(_, code)| collect_defined(code, &mut defined));
    for (path, code) in sources {
        let file = File { code: &code[..], path: path.clone() };
        check_regexes(code, &defined, &mut |part, why| diagnostics.add(&file, part, || why));
    }
    if diagnostics.errors == 0 { Ok(()) } else { Err(diagnostics.into_text()) }
}

/// Compiles `code` behind these definitions. `prepare` sees the source of each module and may change it.
///
/// Errors: as text, with places in `source`; without text where that has no name, because nobody has written it.
pub(super) fn load_and_compile<'a>(
    source: Source<'_>,
    code: &'a str,
    definitions: Vec<Def<&'a str>>,
    variables: &[&'a str],
    prepare: &mut dyn FnMut(String, &Path) -> Result<String, String>,
) -> Result<jaq_core::Filter<Data>, String> {
    let mut read = Vec::new();
    let reader = |import: Import<'_, &str, PathBuf>| {
        let path = find(source.folder, &import)?;
        let code = read_module(&path)?;
        if !read.contains(&path) {
            read.push(path.clone());
        }
        if read.len() > MAX_MODULES {
            return Err(format!("more than {MAX_MODULES} modules"));
        }
        Ok(File { code: prepare(code, &path)?, path })
    };
    let arena = Arena::default();
    let main = File { code, path: PathBuf::from(source.name) };
    let load_errors = |errors| if source.name.is_empty() { String::new() } else { load_errors(errors) };
    let modules = Loader::new(definitions).with_read(reader).load(&arena, main).map_err(load_errors)?;
    load::import(&modules, |_| Err("data cannot be imported".into())).map_err(load_errors)?;
    let compiler = Compiler::default().with_funs(natives::all()).with_global_vars(variables.iter().copied());
    compiler.compile(modules).map_err(|errors| {
        let mut diagnostics = Diagnostics::default();
        if source.name.is_empty() {
            return String::new();
        }
        for (file, errors) in &errors {
            for (name, what) in errors {
                diagnostics.add(file, name, || format!("undefined {} {name}", what.as_str()))
            }
        }
        diagnostics.into_text()
    })
}

/// The file of an `import` or `include`: `NAME.jq` beside the importing file or in the filter's folder, and nowhere outside of that.
/// `{search: ...}` is not followed: there is one folder.
fn find(folder: Option<&Path>, import: &Import<'_, &str, PathBuf>) -> Result<PathBuf, String> {
    let folder = folder.ok_or("there are no modules without --from-file")?;
    let root = folder.canonicalize().map_err(|error| format!("cannot resolve `{}`: {error}", folder.display()))?;
    let name = Path::new(import.path);
    if !name.is_relative() {
        return Err("the path of a module is relative".into());
    }
    let file = name.with_added_extension("jq");
    let beside = import.parent.parent().map(|parent| parent.join(&file));
    let found = beside.into_iter().chain([root.join(&file)]).filter_map(|path| path.canonicalize().ok());
    match found.into_iter().find(|path| path.is_file()) {
        Some(path) if path.starts_with(&root) => Ok(path),
        Some(_) => Err("outside of the filter's folder".into()),
        None => Err("file not found".into()),
    }
}

fn read_module(path: &Path) -> Result<String, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read `{}`: {error}", path.display());
    let length = path.metadata().map_err(|error| cannot(&error))?.len();
    if length > MAX_SOURCE as u64 {
        return Err(format!("longer than {MAX_SOURCE} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| cannot(&error))
}

fn load_errors(errors: load::Errors<&str, PathBuf>) -> String {
    let mut diagnostics = Diagnostics::default();
    for (file, error) in &errors {
        match error {
            load::Error::Io(errors) => {
                for (path, why) in errors {
                    diagnostics.add(file, path, || format!("cannot load {path}: {why}"))
                }
            }
            load::Error::Lex(errors) => {
                for (wanted, rest) in errors {
                    diagnostics.add(file, rest, || expected(wanted.as_str(), rest))
                }
            }
            load::Error::Parse(errors) => {
                for (wanted, rest) in errors {
                    diagnostics.add(file, rest, || expected(wanted.as_str(), rest))
                }
            }
        }
    }
    diagnostics.into_text()
}

/// The errors so far, as text.
#[derive(Default)]
struct Diagnostics {
    text: String,
    errors: usize,
}

impl Diagnostics {
    fn add(&mut self, file: &File<&str, PathBuf>, part: &str, what: impl FnOnce() -> String) {
        self.errors += 1;
        if self.errors <= MAX_ERRORS {
            self.text += &at(file, part, &what())
        }
    }
    fn into_text(self) -> String {
        match self.errors.checked_sub(MAX_ERRORS) {
            None | Some(0) => self.text,
            Some(more) => format!("{}and {more} more errors\n", self.text),
        }
    }
}

fn expected(wanted: &str, rest: &str) -> String {
    const SHOWN: usize = 20;
    match rest.chars().take(SHOWN).collect::<String>() {
        none if none.is_empty() => format!("expected {wanted}, found the end"),
        found => format!("expected {wanted}, found {found:?}"),
    }
}

/// `FILE:LINE:COLUMN: WHAT`, the line, and a caret under `part`, which is a part of the file's text.
fn at(file: &File<&str, PathBuf>, part: &str, what: &str) -> String {
    let start = load::span(file.code, part).start;
    let line_start = file.code[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let row = file.code[..start].matches('\n').count() + 1;
    let column = file.code[line_start..start].chars().count() + 1;
    // of a long line only what is around
    let skipped = (column - 1).saturating_sub(MAX_EXCERPT / 2);
    let line = file.code[line_start..].lines().next().unwrap_or_default().replace('\t', " ");
    let line: String = line.chars().skip(skipped).take(MAX_EXCERPT).collect();
    let caret = column - skipped;
    format!("{}:{row}:{column}: {what}\n{line}\n{:>caret$}\n", file.path.display(), "^")
}
