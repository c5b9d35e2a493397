//! OWNS files of tokens and secrets: they are read again when they change, so that they rotate without a restart.
//!
//! They are looked at when somebody calls, ten times a second at most: no thread, and nothing while nobody calls. Each file is opened by its
//! path, for the kubelet swaps symlinks.

use log::warn;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

/// How long a change may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A file system may give the same time to two changes; a file that was changed this recently is read again.
const RECENT: Duration = Duration::from_secs(2);
/// Bytes of a file: a thousand tokens.
const MAX_FILE: u64 = 64 << 10;
/// Files of a folder: Kubernetes limits a Secret to 1 MiB.
const MAX_FILES: usize = 1000;

/// A file that was read.
pub(super) struct SecretFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    text: Vec<u8>,
}

/// Makes a value of all files, and says what is wrong with them. What is wrong is not in the value.
pub(super) type Make<T> = Box<dyn Fn(&[SecretFile]) -> (T, Vec<String>) + Send + Sync>;

/// A value that is made of a file, or of the files of a folder.
pub(super) struct Followed<T> {
    path: PathBuf,
    is_folder: bool,
    make: Make<T>,
    state: RwLock<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// None: to be read again.
    stamps: Option<Vec<Stamp>>,
    looked_at: Instant,
    /// What was last wrong, so that it is logged once.
    problems: Vec<String>,
}

/// A file as it was.
#[derive(Eq, PartialEq)]
struct Stamp {
    path: PathBuf,
    name: String,
    modified: SystemTime,
    length: u64,
    inode: u64,
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SecretFile {
    #[cfg(test)]
    pub(super) fn of(name: &str, text: &str) -> Self {
        SecretFile { name: name.to_owned(), path: PathBuf::from(name), text: text.into() }
    }

    /// Its lines, with their numbers. Empty lines at the end do not count.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let text = self.text.trim_ascii_end();
        let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.enumerate().map(|(at, line)| (at + 1, line))
    }
}

impl<T> Followed<T> {
    /// Errors: all that is wrong.
    pub(super) fn open(path: PathBuf, is_folder: bool, make: Make<T>) -> Result<Self, Vec<String>> {
        let cannot = |error| vec![format!("cannot read `{}`: {error}", path.display())];
        let stamps = stamps(&path, is_folder).map_err(cannot)?;
        let files = stamps.iter().map(read).collect::<io::Result<Vec<_>>>().map_err(cannot)?;
        let (value, problems) = make(&files);
        if !problems.is_empty() {
            return Err(problems);
        }
        let state = State { value: value.into(), stamps: Some(stamps), looked_at: Instant::now(), problems };
        Ok(Followed { path, is_folder, make, state: RwLock::new(state) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of the files as they are, or were a moment ago.
    pub(super) fn current(&self) -> Arc<T> {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.looked_at.elapsed() < LOOK_AGAIN {
                return state.value.clone();
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= LOOK_AGAIN {
            state.looked_at = Instant::now();
            self.look(&mut state)
        }
        state.value.clone()
    }

    /// Reads the files again if they have changed. A file that is gone, or is wrong, counts no longer; what cannot be read for another reason,
    /// such as too many open files, stays as it was.
    fn look(&self, state: &mut State<T>) {
        let problems = match stamps(&self.path, self.is_folder) {
            Err(error) => self.cannot(state, error),
            Ok(stamps) => {
                let now = SystemTime::now();
                let is_recent = |stamp: &Stamp| now.duration_since(stamp.modified).is_ok_and(|age| age < RECENT);
                if state.stamps.as_ref() == Some(&stamps) && !stamps.iter().any(is_recent) {
                    return;
                }
                match stamps.iter().map(read).collect::<io::Result<Vec<_>>>() {
                    Err(error) => self.cannot(state, error),
                    Ok(files) => {
                        let (value, problems) = (self.make)(&files);
                        (state.value, state.stamps) = (value.into(), Some(stamps));
                        problems
                    }
                }
            }
        };
        if problems != state.problems {
            problems.iter().for_each(|problem| warn!("{problem}"));
            state.problems = problems
        }
    }

    fn cannot(&self, state: &mut State<T>, error: io::Error) -> Vec<String> {
        let path = self.path.display();
        if error.kind() == ErrorKind::NotFound {
            (state.value, state.stamps) = ((self.make)(&[]).0.into(), None);
            return vec![format!("`{path}` is gone, so nothing in it counts any longer: {error}")];
        }
        state.stamps = None;
        vec![format!("keeping what was read of `{path}` before: {error}")]
    }
}

/// The files, in the order of their names.
fn stamps(path: &Path, is_folder: bool) -> io::Result<Vec<Stamp>> {
    if !is_folder {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![stamp(path.to_owned(), name)?]);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue; // the kubelet's own
        }
        if all.len() == MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
        match stamp(entry.path(), name) {
            Err(error) if error.kind() == ErrorKind::NotFound => (), // gone meanwhile
            stamp => all.push(stamp?),
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn stamp(path: PathBuf, name: String) -> io::Result<Stamp> {
    let about = fs::metadata(&path)?;
    let refuse = |why: &str| Err(io::Error::other(format!("`{}` {why}", path.display())));
    if !about.is_file() {
        return refuse("is not a file");
    }
    if about.len() > MAX_FILE {
        return refuse(&format!("has more than {MAX_FILE} bytes"));
    }
    Ok(Stamp { modified: about.modified()?, length: about.len(), inode: about.ino(), path, name })
}

fn read(stamp: &Stamp) -> io::Result<SecretFile> {
    let mut text = Vec::new();
    fs::File::open(&stamp.path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(SecretFile { name: stamp.name.clone(), path: stamp.path.clone(), text })
}
