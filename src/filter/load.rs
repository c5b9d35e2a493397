//! Reads filter source with its modules, and reports every error with file, line, column, source line and a caret.

use super::data::Data;
use super::natives;
use jaq_core::Compiler;
use jaq_core::load::parse::Def;
use jaq_core::load::{self, Arena, File, Import, Loader};
use std::path::{Path, PathBuf};

/// Bytes of one source: jaq parses recursively, and the stack below is sized for this.
pub(super) const MAX_SOURCE: usize = 1 << 16;
/// Sources of one program.
const MAX_MODULES: usize = 64;
/// Errors that are diagnostics: nobody reads more, and a source of nothing but parentheses has one for each.
const MAX_ERRORS: usize = 100;
/// Characters of the source line that an error shows.
const MAX_EXCERPT: usize = 160;

/// A filter's text and where it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) code: &'a str,
    /// Its name in errors: a path, `<argument>` or `<default>`.
    pub(crate) name: &'a str,
    /// The only folder for modules; None forbids modules.
    pub(crate) folder: Option<&'a Path>,
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
pub(super) struct Diagnostics {
    text: String,
    pub(super) errors: usize,
}

impl Diagnostics {
    pub(super) fn add(&mut self, file: &File<&str, PathBuf>, part: &str, what: impl FnOnce() -> String) {
        self.errors += 1;
        if self.errors <= MAX_ERRORS {
            self.text += &at(file, part, &what())
        }
    }
    pub(super) fn into_text(self) -> String {
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
pub(super) fn at(file: &File<&str, PathBuf>, part: &str, what: &str) -> String {
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
