//! Signatures of webhooks: what each sender signs, and where it puts the signature. Pure.
//!
//! | scheme | signed | in the header |
//! |---|---|---|
//! | `github` | body | `X-Hub-Signature-256: sha256=HEX` |
//! | `bitbucket` | body | `X-Hub-Signature: sha256=HEX` |
//! | `gitlab` | nothing: the secret itself is sent | `X-Gitlab-Token: SECRET` |
//! | `slack` | `v0:TIME:` and body | `X-Slack-Signature: v0=HEX`, `X-Slack-Request-Timestamp: TIME` |
//! | `stripe` | `TIME.` and body | `Stripe-Signature: t=TIME,v1=HEX` |
//! | `shopify` | body | `X-Shopify-Hmac-Sha256: BASE64` |
//! | `standard-webhooks` | `ID.TIME.` and body | `webhook-signature: v1,BASE64`, `webhook-id: ID`, `webhook-timestamp: TIME` |
//! | `hmac-sha256:HEADER:hex`, `…:base64` | body | `HEADER: HEX`, with or without `sha256=` in front |

use super::followed::SecretFile;
use crate::hash::{Digest, HmacKey, are_equal, from_hex, sha256};
use crate::http::{Request, is_header_name};
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode::Indifferent;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use std::fmt;

/// Seconds by which the time of a signature may differ from ours: what Slack, Stripe and Standard Webhooks recommend.
const WINDOW: u64 = 300;
/// Secrets of a sender: an old one and a new one, and two more. A body is hashed with each, before it is known who sends it.
const MAX_SECRETS: usize = 4;
/// For secrets of Standard Webhooks, which its libraries take without padding too.
const WITH_OR_WITHOUT_PADDING: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_padding_mode(Indifferent));
/// In front of a secret of Standard Webhooks.
const STANDARD_PREFIX: &[u8] = b"whsec_";

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    GitHub,
    Bitbucket,
    GitLab,
    Slack,
    Stripe,
    Shopify,
    StandardWebhooks,
    Hmac { header: String, encoding: Encoding },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Encoding {
    Hex,
    Base64,
}

/// The secrets of a sender. They have no `Debug`.
#[derive(Default)]
pub(super) struct Secrets {
    keys: Vec<HmacKey>,
    /// Of secrets that are sent themselves.
    digests: Vec<Digest>,
}

/// Why a signature is not right, for the log.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Wrong<'a> {
    /// Empty if it is not about one.
    header: &'a str,
    what: &'static str,
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.header.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}", self.header, self.what)
    }
}

const NOT_OF_SCHEME: &str = "is not a signature of this scheme";

/// What a request says of its signature.
struct Signed {
    /// Of these one has to be right.
    signatures: Vec<Digest>,
    /// What is signed in front of the body.
    before: Vec<u8>,
    /// Seconds since 1970.
    time: Option<u64>,
}

impl Scheme {
    /// As in `--webhook PATH=SCHEME:FILE`. Returns the file too.
    ///
    /// Errors: what is wrong.
    pub(super) fn parse(text: &str) -> Result<(Self, &str), String> {
        const EXPECTED: &str = "expected github, bitbucket, gitlab, slack, stripe, shopify, standard-webhooks or hmac-sha256:HEADER:hex|base64, \
                                then a colon and a file";
        let (name, rest) = text.split_once(':').ok_or_else(|| format!("{text:?} has no file: {EXPECTED}"))?;
        let scheme = match name {
            "github" => Scheme::GitHub,
            "bitbucket" => Scheme::Bitbucket,
            "gitlab" => Scheme::GitLab,
            "slack" => Scheme::Slack,
            "stripe" => Scheme::Stripe,
            "shopify" => Scheme::Shopify,
            "standard-webhooks" => Scheme::StandardWebhooks,
            "hmac-sha256" => {
                let mut parts = rest.splitn(3, ':');
                let (header, encoding, file) = (parts.next(), parts.next(), parts.next());
                let encoding = match encoding {
                    Some("hex") => Encoding::Hex,
                    Some("base64") => Encoding::Base64,
                    _ => return Err(format!("{text:?}: {EXPECTED}")),
                };
                let header = header.filter(|header| is_header_name(header));
                let header = header.ok_or_else(|| format!("{text:?} has no name of a header: {EXPECTED}"))?;
                return Ok((Scheme::Hmac { header: header.to_ascii_lowercase(), encoding }, file.unwrap_or_default()));
            }
            _ => return Err(format!("has the unknown scheme {name:?}: {EXPECTED}")),
        };
        Ok((scheme, rest))
    }

    /// Its word in the log.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Scheme::GitHub => "github",
            Scheme::Bitbucket => "bitbucket",
            Scheme::GitLab => "gitlab",
            Scheme::Slack => "slack",
            Scheme::Stripe => "stripe",
            Scheme::Shopify => "shopify",
            Scheme::StandardWebhooks => "standard-webhooks",
            Scheme::Hmac { .. } => "hmac-sha256",
        }
    }

    /// The secrets in a file, one per line, and what is wrong with them.
    pub(super) fn secrets(&self, files: &[SecretFile]) -> (Secrets, Vec<String>) {
        let (mut secrets, mut problems) = (Secrets::default(), Vec::new());
        for file in files {
            for (number, secret) in file.lines() {
                let mut add = || match (self, secret) {
                    (_, []) => Err("has an empty secret"),
                    _ if number > MAX_SECRETS => Err("has more than 4 secrets, the next"),
                    (Scheme::GitLab, secret) => {
                        secrets.digests.push(sha256(secret));
                        Ok(())
                    }
                    (Scheme::StandardWebhooks, secret) => {
                        let key =
                            WITH_OR_WITHOUT_PADDING.decode(secret.strip_prefix(STANDARD_PREFIX).unwrap_or(secret));
                        let key = key.ok().filter(|key| !key.is_empty()).ok_or("has a secret that is not Base64")?;
                        secrets.keys.push(HmacKey::new(&key));
                        Ok(())
                    }
                    (_, secret) => {
                        secrets.keys.push(HmacKey::new(secret));
                        Ok(())
                    }
                };
                if let Err(why) = add() {
                    problems.push(format!("`{}` {why} in line {number}", file.path.display()));
                    break;
                }
            }
        }
        (secrets, problems)
    }

    /// Whether the sender of a request knows one of the secrets. `now`: gives seconds since 1970, where a time is signed.
    ///
    /// Errors: why not, for the log.
    pub(super) fn verify<'a>(
        &'a self,
        request: &'a Request,
        secrets: &Secrets,
        now: &dyn Fn() -> u64,
    ) -> Result<(), Wrong<'a>> {
        if let Scheme::GitLab = self {
            let token = sha256(single(request, "x-gitlab-token")?);
            // none is skipped, so that the time says nothing
            let is_known = secrets.digests.iter().fold(false, |is, known| is | are_equal(known, &token));
            return if is_known {
                Ok(())
            } else {
                Err(Wrong { header: "x-gitlab-token", what: "is not one of the secrets" })
            };
        }
        let Signed { signatures, before, time } = self.signed(request)?;
        if let Some(time) = time
            && now().abs_diff(time) > WINDOW
        {
            return Err(Wrong { header: "", what: "the time of the signature is more than 300 s from now" });
        }
        let is_right = |key: &HmacKey| {
            let right = key.sign(&[&before, request.body()]);
            signatures.iter().any(|given| are_equal(given, &right))
        };
        match secrets.keys.iter().any(is_right) {
            true => Ok(()),
            false => Err(Wrong { header: "", what: "the signature is not that of the body with one of the secrets" }),
        }
    }

    /// Errors: why there is no signature.
    fn signed<'a>(&'a self, request: &'a Request) -> Result<Signed, Wrong<'a>> {
        let header = match self {
            Scheme::GitHub => "x-hub-signature-256",
            Scheme::Bitbucket => "x-hub-signature",
            Scheme::GitLab => "x-gitlab-token",
            Scheme::Slack => "x-slack-signature",
            Scheme::Stripe => "stripe-signature",
            Scheme::Shopify => "x-shopify-hmac-sha256",
            Scheme::StandardWebhooks => "webhook-signature",
            Scheme::Hmac { header, .. } => header,
        };
        let value = single(request, header)?;
        let plain = value.strip_prefix(b"sha256=");
        let over_body = match self {
            Scheme::Slack => {
                let time = single(request, "x-slack-request-timestamp")?;
                let signatures = value.strip_prefix(b"v0=").and_then(from_hex).into_iter().collect();
                return Ok(Signed { signatures, before: [b"v0:", time, b":"].concat(), time: Some(seconds(time)?) });
            }
            Scheme::StandardWebhooks => {
                let (id, time) = (single(request, "webhook-id")?, single(request, "webhook-timestamp")?);
                let all = value.split(|byte| *byte == b' ');
                let signatures = all.filter_map(|one| from_base64(one.strip_prefix(b"v1,")?)).collect();
                return Ok(Signed { signatures, before: [id, b".", time, b"."].concat(), time: Some(seconds(time)?) });
            }
            Scheme::Stripe => return stripe(value),
            Scheme::GitHub | Scheme::Bitbucket => plain.and_then(from_hex),
            Scheme::Hmac { encoding: Encoding::Hex, .. } => from_hex(plain.unwrap_or(value)),
            Scheme::Hmac { encoding: Encoding::Base64, .. } => from_base64(plain.unwrap_or(value)),
            Scheme::Shopify => from_base64(value),
            Scheme::GitLab => None, // nothing is signed
        };
        let signature = over_body.ok_or(Wrong { header, what: NOT_OF_SCHEME })?;
        Ok(Signed { signatures: vec![signature], before: Vec::new(), time: None })
    }
}

/// `t=TIME,v1=HEX,v1=HEX,v0=HEX`: a secret that is replaced still signs for a while; `v0` is for tests.
fn stripe(header: &[u8]) -> Result<Signed, Wrong<'static>> {
    let (mut times, mut signatures) = (Vec::new(), Vec::new());
    for part in header.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        match part {
            [b't', b'=', time @ ..] => times.push(time),
            [b'v', b'1', b'=', signature @ ..] => signatures.extend(from_hex(signature)),
            _ => (),
        }
    }
    let [time] = times[..] else { return Err(Wrong { header: "stripe-signature", what: "does not have one time" }) };
    Ok(Signed { signatures, before: [time, b"."].concat(), time: Some(seconds(time)?) })
}

/// The value of a header that has to be there once: of two, somebody else may look at the other.
fn single<'r>(request: &'r Request, name: &'r str) -> Result<&'r [u8], Wrong<'r>> {
    let mut all = request.values(name);
    match (all.next(), all.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Wrong { header: name, what: "is missing" }),
        (Some(_), Some(_)) => Err(Wrong { header: name, what: "is repeated" }),
    }
}

fn from_base64(text: &[u8]) -> Option<Digest> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Digits only: a sign or a space would be signed too, and could be read in two ways.
fn seconds(text: &[u8]) -> Result<u64, Wrong<'static>> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let wrong = Wrong { header: "", what: "the time of the signature is not a number of seconds" };
    digits.and_then(|digits| digits.parse().ok()).ok_or(wrong)
}
