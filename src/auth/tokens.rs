//! Tokens in files (`--auth tokens=FOLDER`): the name of a file is that of the caller, and each of its lines is a valid token.

use super::caller::{Caller, CallerKind};
use super::followed::SecretFile;
use crate::hash::are_equal;
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Tokens of all files: each is looked at in every request.
const MAX_TOKENS: usize = 1000;

/// All tokens. They have no `Debug`.
#[derive(Default)]
pub(super) struct Tokens {
    all: Vec<Token>,
    /// With a seed of its own, so that hashes say nothing of tokens, nor does the time that it takes to compare them.
    hasher: RandomState,
}

struct Token {
    hash: u64,
    bytes: Box<[u8]>,
    caller: Arc<Caller>,
}

impl Tokens {
    /// Also returns what is wrong with the files. Nothing of a wrong file counts.
    pub(super) fn of(files: &[SecretFile]) -> (Self, Vec<String>) {
        let (mut tokens, mut problems) = (Tokens::default(), Vec::new());
        for file in files {
            let known = tokens.all.len();
            if let Err(why) = tokens.add(file) {
                problems.push(format!("`{}` {why}", file.path.display()));
                tokens.all.truncate(known)
            }
        }
        (tokens, problems)
    }

    /// Errors: why the file cannot be used.
    fn add(&mut self, file: &SecretFile) -> Result<(), String> {
        // as a Secret's keys; a name with a colon could not be sent (RFC 7617 2)
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !file.name.bytes().all(is_plain) {
            return Err("is not named after a caller: letters, digits, '-', '.' and '_'".to_owned());
        }
        let caller = Arc::new(Caller::new(CallerKind::Token, &file.name));
        for (number, token) in file.lines() {
            if token.is_empty() {
                return Err(format!("has an empty token in line {number}"));
            }
            if !token.iter().all(u8::is_ascii_graphic) {
                let allowed = "only printable ASCII, without spaces";
                return Err(format!("has characters in line {number} that a token cannot have: {allowed}"));
            }
            match self.find(token) {
                Some(other) if other.name != caller.name => {
                    return Err(format!("has a token of {} in line {number}: who calls?", other.name));
                }
                Some(_) => continue,
                None if self.all.len() == MAX_TOKENS => return Err(format!("is beyond {MAX_TOKENS} tokens")),
                None => (),
            }
            self.all.push(Token { hash: self.hasher.hash_one(token), bytes: token.into(), caller: caller.clone() })
        }
        Ok(())
    }

    /// The caller with this token.
    pub(super) fn find(&self, token: &[u8]) -> Option<&Arc<Caller>> {
        let hash = self.hasher.hash_one(token);
        let is_it = |known: &&Token| known.hash == hash && are_equal(&known.bytes, token);
        self.all.iter().find(is_it).map(|known| &known.caller)
    }
}
