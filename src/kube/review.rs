//! Asks the API server whose a token is, and what its owner may do.

use super::access::allows;
use super::client::Client;
use super::failure::Failure;
use super::request::{ApiRequest, Verb};
use super::response::ApiResponse;
use serde_json::Value;
use std::time::Instant;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// The group of the virtual resource that Roles name to let callers in.
const GROUP: &str = "k8s-job-dispatcher";
/// Characters of what the API server says of a token.
const MAX_SAID: usize = 300;

/// A user (authentication.k8s.io/v1, UserInfo).
#[derive(Debug, Default)]
pub(crate) struct User {
    pub(crate) username: String,
    pub(crate) groups: Vec<String>,
    /// As JSON, as the SubjectAccessReview wants it: `user`, `uid`, `groups` and `extra`.
    spec: String,
}

impl User {
    /// Of a TokenReview's status; None if it names nobody.
    fn of(mut user: Value) -> Option<Self> {
        let username = user["username"].as_str().filter(|name| !name.is_empty())?.to_owned();
        let texts = |values: &Value| {
            values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let groups = texts(&user["groups"]);
        user["user"] = user["username"].take();
        user.as_object_mut()?.remove("username");
        Some(User { username, groups, spec: user.to_string() })
    }

    /// Bytes of its texts.
    pub(crate) fn text_bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| group.len() + size_of::<String>()).sum();
        self.username.len() + self.spec.len() + groups
    }
}

impl Client {
    /// Whose a token is, for one of these audiences; without any, for the API server itself.
    ///
    /// Errors: nobody's, with what the API server says of it; or the call fails.
    pub(crate) fn owner(
        &mut self,
        token: &str,
        audiences: &[String],
        until: Instant,
    ) -> Result<Result<User, String>, Failure> {
        let spec = [
            r#"{"token":"#,
            &Value::from(token).to_string(),
            r#","audiences":"#,
            &Value::from(audiences).to_string(),
            "}",
        ];
        let response = self.review(
            Verb::TokenReview,
            TOKEN_REVIEWS,
            "authentication.k8s.io/v1\",\"kind\":\"TokenReview",
            &spec,
            until,
        )?;
        let mut review: Value =
            serde_json::from_slice(&response.body).map_err(|error| response.broken(error, "a TokenReview"))?;
        let mut status = review.get_mut("status").map(Value::take).unwrap_or_default();
        let user = if status["authenticated"] == true { status.get_mut("user").map(Value::take) } else { None };
        let Some(user) = user.and_then(User::of) else {
            let said: String = status["error"].as_str().unwrap_or_default().chars().take(MAX_SAID).collect();
            return Ok(Err(format!("the API server does not know the token: {said:?}")));
        };
        // an API server that knows no audiences names none: its token is not for us
        let is_for =
            |audience: &String| status["audiences"].as_array().is_some_and(|all| all.iter().any(|one| one == audience));
        if !audiences.is_empty() && !audiences.iter().any(is_for) {
            return Ok(Err("the token is not for this audience".to_owned()));
        }
        Ok(Ok(user))
    }

    /// Whether a user may do this with the virtual resource in a namespace.
    pub(crate) fn user_may(
        &mut self,
        user: &User,
        namespace: &str,
        verb: &str,
        subresource: &str,
        until: Instant,
    ) -> Result<bool, Failure> {
        // an object, with at least a name; the names of ours need no escapes
        let user = user.spec.strip_suffix('}').unwrap_or_default();
        let attributes = [
            r#","resourceAttributes":{"namespace":""#,
            namespace,
            r#"","group":""#,
            GROUP,
            r#"","resource":"jobs","verb":""#,
            verb,
            r#"","subresource":""#,
            subresource,
            "\"}}",
        ]
        .concat();
        let kind = "authorization.k8s.io/v1\",\"kind\":\"SubjectAccessReview";
        allows(&self.review(Verb::AccessReview, ACCESS_REVIEWS, kind, &[user, &attributes], until)?)
    }

    fn review(
        &mut self,
        verb: Verb,
        path: &str,
        kind: &str,
        spec: &[&str],
        until: Instant,
    ) -> Result<ApiResponse, Failure> {
        let body = [r#"{"apiVersion":""#, kind, r#"","spec":"#, &spec.concat(), "}"].concat();
        self.call(ApiRequest { verb, path, body: Some(body.as_bytes()), until })?.expect("", 201)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_user_is_asked_about_with_all_that_a_token_review_says_of_it() {
        let user = json!({"username": "a\"}", "uid": "u", "groups": ["g", "h"], "extra": {"k": ["v"]}});
        let user = User::of(user).unwrap();
        assert_eq!((&*user.username, user.groups), ("a\"}", vec!["g".to_owned(), "h".to_owned()]));
        let spec: Value = serde_json::from_str(&user.spec).unwrap();
        assert_eq!(spec, json!({"user": "a\"}", "uid": "u", "groups": ["g", "h"], "extra": {"k": ["v"]}}));
        for nobody in [json!({}), json!({"username": ""}), json!({"username": 1}), json!(null), json!([]), json!("x")] {
            assert!(User::of(nobody.clone()).is_none(), "{nobody}");
        }
        assert!(User::of(json!({"username": "a", "groups": null})).unwrap().groups.is_empty());
    }
}
