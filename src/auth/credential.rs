//! What a request has in its header `Authorization`.

use crate::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

#[derive(Debug, Eq, PartialEq)]
pub(super) enum Credential<'r> {
    Missing,
    /// RFC 6750.
    Bearer(&'r [u8]),
    /// RFC 7617.
    Basic {
        name: Vec<u8>,
        password: Vec<u8>,
    },
    /// Something else, and what.
    Unusable(&'static str),
}

impl<'r> Credential<'r> {
    pub(super) fn of(request: &'r Request) -> Self {
        let mut all = request.values("authorization");
        let (value, None) = (all.next(), all.next()) else { return Credential::Unusable("Authorization is repeated") };
        let Some(value) = value else { return Credential::Missing };
        let (scheme, rest) = value.split_at(value.iter().position(|byte| *byte == b' ').unwrap_or(value.len()));
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            let is_token = rest.iter().all(u8::is_ascii_graphic);
            return if is_token {
                Credential::Bearer(rest)
            } else {
                Credential::Unusable("the token has odd characters")
            };
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Credential::Unusable("Authorization is neither Bearer nor Basic");
        }
        let decoded = STANDARD.decode(rest).unwrap_or_default();
        match decoded.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                Credential::Basic { name: decoded[..colon].to_vec(), password: decoded[colon + 1..].to_vec() }
            }
            None => Credential::Unusable("Authorization is not the Base64 of a name, a colon and a token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials() {
        let basic = |name: &str, password: &str| Credential::Basic { name: name.into(), password: password.into() };
        for (value, want) in [
            ("Bearer abc", Credential::Bearer(b"abc")),
            ("bEARER  abc ", Credential::Bearer(b"abc")),
            ("Bearer", Credential::Bearer(b"")),
            ("Basic YTpiOmM=", basic("a", "b:c")),
            ("basic YTo=", basic("a", "")),
            ("Basic YTpi=", Credential::Unusable("Authorization is not the Base64 of a name, a colon and a token")),
            ("Basic", Credential::Unusable("Authorization is not the Base64 of a name, a colon and a token")),
            ("Digest x", Credential::Unusable("Authorization is neither Bearer nor Basic")),
            ("", Credential::Unusable("Authorization is neither Bearer nor Basic")),
        ] {
            assert_eq!(Credential::of(&Request::of(&[("Authorization", value)])), want, "{value}");
        }
        assert_eq!(Credential::of(&Request::of::<&str>(&[])), Credential::Missing);
        let twice = Request::of(&[("authorization", "Bearer a"), ("Authorization", "Bearer a")]);
        assert_eq!(Credential::of(&twice), Credential::Unusable("Authorization is repeated"));
    }
}
