//! What a caller prefers of our answer (RFC 7240).

use crate::http::Request;

/// Whether the answer to a POST that succeeds has a body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Body {
    #[default]
    Whole,
    /// `Prefer: return=minimal`.
    Minimal,
    /// The request is a CloudEvent. Knative takes a body that is none for a failure, and sends the event again.
    NoneForEvent,
}

pub(super) fn body(request: &Request) -> Body {
    if preference(request, "return").is_some_and(|value| value.eq_ignore_ascii_case("minimal")) {
        Body::Minimal
    } else if request.header("ce-specversion").is_some() {
        Body::NoneForEvent
    } else {
        Body::Whole
    }
}

/// The value of a preference, without quotes. Of several the first counts (RFC 7240 2).
fn preference<'r>(request: &'r Request, wanted: &str) -> Option<&'r str> {
    let headers = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("prefer"));
    let values = headers.filter_map(|(_, value)| std::str::from_utf8(value).ok());
    let mut preferences = values.flat_map(|value| split(value, ',')).filter_map(|one| split(one, ';').next());
    preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

/// The parts between the separators that are in no quoted string.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let is_end = character == separator && !is_quoted;
        is_quoted ^= character == '"' && !is_escaped;
        is_escaped = is_quoted && character == '\\' && !is_escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_preference_of_a_name_counts() {
        for (headers, want) in [
            (&[("Prefer", "return=minimal")][..], Body::Minimal),
            (&[("prefer", "respond-async, wait=10 , Return = \"minimal\" ; a=b")], Body::Minimal),
            (&[("Prefer", "wait=5"), ("Prefer", "return=minimal")], Body::Minimal),
            (&[("Prefer", "return=representation, return=minimal")], Body::Whole),
            (&[("Prefer", r#"a="x,\"return=minimal", b"#)], Body::Whole),
            (&[("Prefer", "a; return=minimal")], Body::Whole),
            (&[("Prefer", "return")], Body::Whole),
            (&[("Ce-Specversion", "1.0")], Body::NoneForEvent),
            (&[], Body::Whole),
        ] {
            assert_eq!(body(&Request::of(headers)), want, "{headers:?}");
        }
    }
}
