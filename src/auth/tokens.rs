//! Tokens in files (`--auth tokens=FOLDER`): the name of a file is that of the caller, and each of its lines is a valid token.

use super::caller::{Caller, CallerKind};
use super::followed::SecretFile;
use crate::hash::{Digest, are_equal, sha256};
use std::sync::Arc;

/// Bytes of a digest by which it is found; they say nothing of the token.
const START: usize = 8;

/// The digests of all tokens, sorted. They have no `Debug`.
#[derive(Default)]
pub(super) struct Tokens(Vec<(Digest, Arc<Caller>)>);

impl Tokens {
    /// Also returns what is wrong with the files. Nothing of a wrong file counts.
    pub(super) fn of(files: &[SecretFile]) -> (Self, Vec<String>) {
        let (mut all, mut problems) = (Vec::<(Digest, Arc<Caller>)>::new(), Vec::new());
        for file in files {
            match digests(file) {
                Ok(digests) => {
                    let caller = Arc::new(Caller::new(CallerKind::Token, &file.name));
                    all.extend(digests.into_iter().map(|digest| (digest, caller.clone())))
                }
                Err(why) => problems.push(format!("`{}` {why}", file.path.display())),
            }
        }
        all.sort_by_key(|(digest, _)| *digest); // stable: of two callers, the first by name
        all.dedup_by(|later, first| {
            let is_same = later.0 == first.0;
            if is_same && later.1.name != first.1.name {
                problems.push(format!("{} and {} have the same token: who calls?", first.1.name, later.1.name))
            }
            is_same
        });
        (Tokens(all), problems)
    }

    /// The caller with this token.
    pub(super) fn find(&self, token: &[u8]) -> Option<&Arc<Caller>> {
        let digest = sha256(token);
        let at = self.0.partition_point(|(known, _)| known[..START] < digest[..START]);
        let same_start = self.0[at..].iter().take_while(|(known, _)| known[..START] == digest[..START]);
        same_start.into_iter().find(|(known, _)| are_equal(known, &digest)).map(|(_, caller)| caller)
    }
}

/// Errors: why the file cannot be used.
fn digests(file: &SecretFile) -> Result<Vec<Digest>, String> {
    // as a Secret's keys; a name with a colon could not be sent (RFC 7617 2)
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !file.name.bytes().all(is_plain) {
        return Err("is not named after a caller: letters, digits, '-', '.' and '_'".to_owned());
    }
    let digest = |(number, line): (usize, &[u8])| match line {
        [] => Err(format!("has an empty token in line {number}")),
        token if token.iter().all(u8::is_ascii_graphic) => Ok(sha256(token)),
        _ => Err(format!(
            "has characters in line {number} that a token cannot have: only printable ASCII, without spaces"
        )),
    };
    file.lines().map(digest).collect()
}
