//! OWNS files of tokens and secrets: they are read again when they change, so that they rotate without a restart.
//!
//! They are looked at when somebody calls, ten times a second at most: no thread, and nothing while nobody calls. One request looks, and the
//! others do not wait for it. Each file is opened by its path, for the kubelet swaps symlinks.

use log::warn;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a change may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Seconds: a file system may give the same time to two changes; a file that was changed this recently is read again.
const RECENT: i64 = 2;
/// Bytes of a file: a thousand tokens.
const MAX_FILE: u64 = 64 << 10;
/// Bytes of all files of a folder: Kubernetes limits a Secret to 1 MiB.
const MAX_FOLDER: usize = 1 << 20;
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
    files: Files,
    make: Make<T>,
    current: RwLock<(Arc<T>, Instant)>,
    /// Held by the request that looks.
    seen: Mutex<Seen>,
}

/// A file, or the files of a folder.
struct Files {
    path: PathBuf,
    is_folder: bool,
}

/// What was seen last.
#[derive(Default)]
struct Seen {
    stamps: Vec<Stamp>,
    /// So that each is logged once.
    problems: Vec<String>,
}

/// A file as it was.
#[derive(Eq, PartialEq)]
struct Stamp {
    path: PathBuf,
    name: String,
    /// It cannot be read, and why.
    problem: Option<String>,
    length: u64,
    device_and_inode: (u64, u64),
    /// Seconds and nanoseconds, which nobody can set.
    changed: (i64, i64),
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("path", &self.files.path).finish_non_exhaustive()
    }
}

impl SecretFile {
    #[cfg(test)]
    pub(super) fn of(name: &str, text: &str) -> Self {
        SecretFile { name: name.to_owned(), path: PathBuf::from(name), text: text.into() }
    }

    /// Its lines, with their numbers. Empty lines at the end do not count.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let end = self.text.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
        let text = &self.text[..end];
        let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.enumerate().map(|(at, line)| (at + 1, line))
    }
}

impl<T> Followed<T> {
    /// Errors: all that is wrong.
    pub(super) fn open(path: PathBuf, is_folder: bool, make: Make<T>) -> Result<Self, Vec<String>> {
        let (files, mut seen) = (Files { path, is_folder }, Seen::default());
        let (read, mut problems) = files.open(&mut seen)?;
        let (value, wrong) = make(&read);
        problems.extend(wrong);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Followed { files, make, current: RwLock::new((Arc::new(value), Instant::now())), seen: Mutex::new(seen) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.files.path
    }

    /// The value of the files as they are, or were a moment ago.
    pub(super) fn current(&self) -> Arc<T> {
        let (value, looked_at) = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if looked_at.elapsed() < LOOK_AGAIN {
            return value;
        }
        let mut seen = match self.seen.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(seen)) => seen.into_inner(),
            Err(TryLockError::WouldBlock) => return value, // another request looks
        };
        let value = match self.files.changed(&mut seen) {
            None => value,
            Some((files, mut problems)) => {
                let (value, wrong) = (self.make)(&files);
                problems.extend(wrong);
                seen.say(problems);
                Arc::new(value)
            }
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (value.clone(), Instant::now());
        value
    }
}

impl Files {
    /// All of them, and what is wrong with some.
    ///
    /// Errors: none can be read.
    fn open(&self, seen: &mut Seen) -> Result<(Vec<SecretFile>, Vec<String>), Vec<String>> {
        let opened = stamps(&self.path, self.is_folder).and_then(|stamps| {
            seen.stamps = stamps;
            read(&seen.stamps)
        });
        opened.map_err(|error| vec![format!("cannot read `{}`: {error}", self.path.display())])
    }

    /// All of them, and what is wrong with some, if one has changed. A file that is gone or wrong counts no longer. What cannot be said for a while,
    /// as with too many open files, changes nothing.
    fn changed(&self, seen: &mut Seen) -> Option<(Vec<SecretFile>, Vec<String>)> {
        let path = self.path.display();
        let looked = stamps(&self.path, self.is_folder).and_then(|stamps| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
            if stamps == seen.stamps && !stamps.iter().any(|stamp| now - stamp.changed.0 < RECENT) {
                return Ok(None);
            }
            read(&stamps).map(|read| Some((stamps, read)))
        });
        match looked {
            Ok(None) => None,
            Ok(Some((stamps, read))) => {
                seen.stamps = stamps;
                Some(read)
            }
            Err(error) if is_final(&error) => {
                seen.stamps = Vec::new();
                let problem = format!("`{path}` cannot be read, so nothing in it counts any longer: {error}");
                Some((Vec::new(), vec![problem]))
            }
            Err(error) => {
                seen.say(vec![format!("keeping what was read of `{path}` before: {error}")]);
                None
            }
        }
    }
}

impl Seen {
    fn say(&mut self, problems: Vec<String>) {
        if problems != self.problems {
            problems.iter().for_each(|problem| warn!("{problem}"));
            self.problems = problems
        }
    }
}

/// Whether an error says that the file is not what it should be, rather than that the system is short of something.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory)
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
        let mut stamp = match stamp(entry.path(), name) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue, // gone meanwhile
            stamp => stamp?,
        };
        if all.len() >= MAX_FILES {
            stamp.problem = Some(format!("is beyond {MAX_FILES} files"))
        }
        let at = all.partition_point(|before: &Stamp| before.name < stamp.name);
        all.insert(at, stamp)
    }
    Ok(all)
}

fn stamp(path: PathBuf, name: String) -> io::Result<Stamp> {
    let about = fs::metadata(&path)?;
    let problem = match () {
        _ if !about.is_file() => Some("is not a file".to_owned()),
        _ if about.len() > MAX_FILE => Some(format!("has more than {MAX_FILE} bytes")),
        _ => None,
    };
    let (length, device_and_inode) = (about.len(), (about.dev(), about.ino()));
    Ok(Stamp { problem, length, device_and_inode, changed: (about.ctime(), about.ctime_nsec()), path, name })
}

/// The files that can be read, and what is wrong with the others.
///
/// Errors: the system is short of something.
fn read(stamps: &[Stamp]) -> io::Result<(Vec<SecretFile>, Vec<String>)> {
    let (mut files, mut problems, mut bytes) = (Vec::new(), Vec::new(), 0);
    for stamp in stamps {
        let mut problem = |why: &dyn fmt::Display| problems.push(format!("`{}` {why}", stamp.path.display()));
        if let Some(why) = &stamp.problem {
            problem(why);
            continue;
        }
        let mut text = Vec::new();
        match fs::File::open(&stamp.path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)) {
            Err(error) if error.kind() == ErrorKind::NotFound => (), // gone meanwhile
            Err(error) if is_final(&error) => problem(&format!("cannot be read: {error}")),
            Err(error) => return Err(error),
            Ok(length) if bytes + length > MAX_FOLDER => problem(&format!("is beyond {MAX_FOLDER} bytes of all files")),
            Ok(length) => {
                bytes += length;
                files.push(SecretFile { name: stamp.name.clone(), path: stamp.path.clone(), text })
            }
        }
    }
    Ok((files, problems))
}
