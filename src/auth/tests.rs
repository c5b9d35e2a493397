use super::followed::SecretFile;
use super::signature::{Encoding, Scheme};
use super::*;
use crate::hash::{HmacKey, hex};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("auth-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn request(headers: &[(&str, &str)], body: &str) -> Request {
    let mut request = Request::of(headers);
    request.bytes.extend_from_slice(body.as_bytes());
    request
}

fn auth(means: &[&str], webhooks: &[&str]) -> Auth {
    Auth::new(means, Vec::new(), webhooks, Public::default()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn usage(means: &[&str], webhooks: &[&str]) -> Vec<String> {
    Auth::new(means, Vec::new(), webhooks, Public::default()).unwrap_err().0
}

const POST: Purpose<'_> = Purpose::Dispatch("/job");
const GET: Purpose<'_> = Purpose::Jobs(Wanted { verb: "get", subresource: "" });

/// The caller's name, or the code and the note of the refusal.
fn verdict(auth: &Auth, purpose: Purpose<'_>, request: &Request) -> Result<Option<String>, (u16, String)> {
    match auth.check(purpose, request) {
        Verdict::Admitted(caller) => Ok(caller.map(|caller| caller.name.clone())),
        Verdict::Refused(status) => Err((status.code(), status.note.unwrap())),
        Verdict::Ask(_) => panic!("the API server is not asked"),
    }
}

fn bearer(token: &str) -> Request {
    request(&[("Authorization", &format!("Bearer {token}"))], "")
}

#[test]
fn without_any_means_nobody_is_asked() {
    let off = Auth::default();
    assert_eq!(verdict(&off, POST, &bearer("x")), Ok(None));
    assert_eq!((off.is_on(), off.summary()), (false, "not authenticated".to_owned()));
}

#[test]
fn tokens_of_files_name_their_callers() {
    let folder = Folder::new("tokens");
    folder.write("ci", "old-token\nnew-token\n");
    folder.write("alertmanager", "a-token\r\n\r\n");
    folder.write(".hidden", "hidden-token");
    let auth = auth(&[&format!("tokens={}", folder.path().display())], &[]);
    for (token, want) in [("old-token", "ci"), ("new-token", "ci"), ("a-token", "alertmanager")] {
        assert_eq!(verdict(&auth, POST, &bearer(token)), Ok(Some(want.to_owned())), "{token}");
    }
    let basic = |text: &str| {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        verdict(&auth, POST, &request(&[("authorization", &format!("Basic {encoded}"))], ""))
    };
    assert_eq!(basic("ci:new-token"), Ok(Some("ci".to_owned())));
    let refused = [
        basic("alertmanager:new-token"),
        basic(":new-token"),
        basic("ci:"),
        verdict(&auth, POST, &bearer("hidden-token")),
        verdict(&auth, POST, &bearer("")),
        verdict(&auth, POST, &bearer("old-token ,")),
        verdict(&auth, GET, &request(&[], "")),
        verdict(&auth, Purpose::Metrics, &request(&[], "")),
        verdict(&auth, Purpose::Docs, &request(&[], "")),
        verdict(&auth, Purpose::Other, &request(&[], "")),
        verdict(&auth, POST, &request(&[("Authorization", "Bearer a-token"), ("Authorization", "Bearer a-token")], "")),
    ];
    let codes: Vec<_> = refused.iter().map(|one| one.as_ref().unwrap_err().0).collect();
    assert_eq!(codes, [401; 11], "{refused:?}");
    assert!(
        refused.iter().flat_map(|one| one.as_ref().err()).all(|(_, note)| !note.contains("token ,")),
        "no credential is logged"
    );
    assert_eq!(verdict(&auth, Purpose::Health, &request(&[], "")), Ok(None));
}

#[test]
fn every_refusal_is_the_same_for_the_caller() {
    let folder = Folder::new("same");
    folder.write("ci", "t");
    let secret = folder.write("secret", "s");
    let means = format!("tokens={}", folder.path().display());
    fs::create_dir(folder.path().join(".webhooks")).unwrap();
    let auth = auth(&[&means], &[&format!("/job/hook=github:{secret}")]);
    let answer = |purpose, request: &Request| match auth.check(purpose, request) {
        Verdict::Refused(status) => format!("{:?}", crate::http::Reply::from(status)),
        other => panic!("{other:?}"),
    };
    let first = answer(POST, &request(&[], ""));
    assert!(first.contains("Bearer realm=") && first.contains("Basic realm="), "{first}");
    for (purpose, request) in [
        (POST, bearer("x")),
        (POST, request(&[("Authorization", "Basic !")], "")),
        (Purpose::Dispatch("/job/hook/x"), bearer("t")),
        (Purpose::Dispatch("/job/hook"), request(&[("X-Hub-Signature-256", "sha256=00")], "")),
        (Purpose::Other, request(&[], "")),
    ] {
        assert_eq!(answer(purpose, &request), first, "{purpose:?}");
    }
}

#[test]
fn what_is_wrong_with_files_and_options_is_named() {
    let folder = Folder::new("wrong");
    let failed = |means: &[&str], webhooks: &[&str]| {
        Auth::new(means, Vec::new(), webhooks, Public::default()).unwrap_err().1.join("; ")
    };
    let means = format!("tokens={}", folder.path().display());
    for (name, text, says) in [
        ("a", "", "has an empty token in line 1"),
        ("a", "\n", "has an empty token in line 1"),
        ("a", "t\n\nu", "has an empty token in line 2"),
        ("a", "t u", "has characters in line 1 that a token cannot have"),
        ("a b", "t", "is not named after a caller"),
    ] {
        let path = folder.write(name, text);
        let said = failed(&[&means], &[]);
        assert!(said.contains(&format!("`{path}` {says}")), "{text:?} gave {said}");
        fs::remove_file(path).unwrap();
    }
    folder.write("a", "t");
    folder.write("b", "t");
    assert!(failed(&[&means], &[]).ends_with("b` has a token of a in line 1: who calls?"));
    fs::create_dir(folder.path().join("sub")).unwrap();
    assert!(failed(&[&means], &[]).contains("sub` is not a file"));
    fs::write(folder.path().join("large"), [b'x'; (64 << 10) + 1]).unwrap();
    assert!(failed(&[&means], &[]).contains("large` has more than 65536 bytes"));
    fs::remove_file(folder.path().join("large")).unwrap();
    assert!(failed(&["tokens=/nonexistent"], &[]).contains("cannot read `/nonexistent`"));
    let empty = folder.write("empty", "");
    assert!(failed(&[], &[&format!("/job=slack:{empty}")]).contains("has an empty secret in line 1"));
    let odd = folder.write("odd", "whsec_!");
    assert!(
        failed(&[], &[&format!("/job=standard-webhooks:{odd}")]).contains("has a secret that is not Base64 in line 1")
    );
    let many = folder.write("many", &"s\n".repeat(5));
    assert!(failed(&[], &[&format!("/job=stripe:{many}")]).contains("has more than 4 secrets, the next in line 5"));

    let file = folder.write("secret", "s");
    for (webhook, says) in [
        ("/job", "is not PATH=SCHEME:FILE"),
        ("job=github:x", "which is not a path of a POST"),
        ("/jobs=github:x", "which is not a path of a POST"),
        ("/job//a=github:x", "which is not a path of a POST"),
        ("/job/..=github:x", "which is not a path of a POST"),
        ("/job/%61=github:x", "has a percent sign in its path"),
        ("/job=github", "has no file"),
        ("/job=github:", "has no file"),
        ("/job=nothub:x", "has the unknown scheme \"nothub\""),
        ("/job=hmac-sha256:X-Sig:x", "expected github"),
        ("/job=hmac-sha256:X Sig:hex:x", "has no name of a header"),
    ] {
        let said = usage(&[], &[webhook]).join("; ");
        assert!(said.contains(says), "{webhook} gave {said}");
    }
    let twice = [format!("/job/a=github:{file}"), format!("/job/a/=gitlab:{file}")];
    assert_eq!(usage(&[], &[&twice[0], &twice[1]]), ["--webhook: /job/a is given twice"]);
    for means in ["tokens", "tokens=", "basic", "token-review=x"] {
        assert_eq!(usage(&[means], &[]).len(), 1, "{means}");
    }
}

/// Until `want` holds; files are looked at ten times a second.
fn soon(what: &str, mut want: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !want() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5))
    }
}

#[test]
fn tokens_rotate_without_a_restart_and_a_file_that_is_gone_revokes() {
    let folder = Folder::new("rotate");
    folder.write("ci", "one");
    folder.write("other", "two");
    let auth = auth(&[&format!("tokens={}", folder.path().display())], &[]);
    let is_good = |token: &str| verdict(&auth, POST, &bearer(token)).is_ok();
    assert!(is_good("one") && is_good("two"));
    folder.write("ci", "new");
    soon("the file was written again", || is_good("new") && !is_good("one"));
    folder.write("late", "three");
    soon("there is a new file", || is_good("three"));
    folder.write("ci", "");
    soon("an empty file is nobody's, and the others stay", || !is_good("new") && is_good("two"));
    fs::create_dir(folder.path().join("wrong")).unwrap();
    folder.write("last", "four");
    soon("what is wrong beside it does not matter", || is_good("four") && is_good("two"));
    fs::remove_file(folder.path().join("other")).unwrap();
    soon("the file is gone", || !is_good("two") && is_good("four"));
    fs::remove_dir_all(folder.path()).unwrap();
    soon("the folder is gone", || !is_good("three"));
    fs::create_dir(folder.path()).unwrap();
    folder.write("ci", "again");
    soon("the folder is there again", || is_good("again"));
}

/// The kubelet swaps the symlink `..data`.
#[test]
fn a_mounted_secret_is_followed() {
    let folder = Folder::new("mounted");
    let put = |version: &str, token: &str| {
        let data = folder.path().join(version);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("ci"), token).unwrap();
        let next = folder.path().join("..data_tmp");
        std::os::unix::fs::symlink(version, &next).unwrap();
        fs::rename(next, folder.path().join("..data")).unwrap()
    };
    put("..1", "one");
    std::os::unix::fs::symlink("..data/ci", folder.path().join("ci")).unwrap();
    let auth = auth(&[&format!("tokens={}", folder.path().display())], &[]);
    let is_good = |token: &str| verdict(&auth, POST, &bearer(token)).is_ok();
    assert!(is_good("one"));
    put("..2", "two");
    soon("the Secret has changed", || is_good("two") && !is_good("one"));
}

fn signed(scheme: &str, secret: &str, headers: &[(&str, &str)], body: &str, now: u64) -> Result<(), String> {
    let (scheme, _) = Scheme::parse(&format!("{scheme}:f")).unwrap();
    let file = SecretFile::of("f", secret);
    let (secrets, problems) = scheme.secrets(&[file]);
    assert!(problems.is_empty(), "{problems:?}");
    scheme.verify(&request(headers, body), &secrets, &|| now).map_err(|wrong| wrong.to_string())
}

#[test]
fn published_vectors() {
    let github = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let of_github = |signature: &str, body: &str| {
        signed("github", "It's a Secret to Everybody", &[("X-Hub-Signature-256", signature)], body, 0)
    };
    assert_eq!(of_github(github, "Hello, World!"), Ok(()));
    assert!(of_github(github, "Hello, World").is_err());
    for bad in ["", &github[7..], &github[..70], &github.replace("75", "76"), &github.replace("sha256=", "sha1=")] {
        assert!(of_github(bad, "Hello, World!").is_err(), "{bad}");
    }

    let slack_body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let slack = [
        ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ("X-Slack-Request-Timestamp", "1531420618"),
    ];
    let of_slack = |now| signed("slack", "8f742231b10e8888abcd99yyyzzz85a5", &slack, slack_body, now);
    for (now, is_right) in
        [(1531420618, true), (1531420918, true), (1531420919, false), (1531420318, true), (1531420317, false)]
    {
        assert_eq!(of_slack(now).is_ok(), is_right, "{now}");
    }

    let standard = |signature: &str, time: &str| {
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", time),
            ("webhook-signature", signature),
        ];
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        signed("standard-webhooks", secret, &headers, r#"{"test": 2432232314}"#, 1614265330)
    };
    assert_eq!(
        signed("standard-webhooks", "YQ", &[], "", 0),
        Err("webhook-signature is missing".to_owned()),
        "without padding"
    );
    let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(standard(right, "1614265330"), Ok(()));
    assert_eq!(standard(&format!("v1a,x v1,{} {right}", "A".repeat(43) + "="), "1614265330"), Ok(()));
    for (signature, time) in [
        (&right[3..], "1614265330"),
        (right, "1614265331"),
        (right, "-1614265330"),
        (right, "+1614265330"),
        (right, "99999999999999999999999"),
        (right, ""),
        ("v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "1614265330"),
    ] {
        assert!(standard(signature, time).is_err(), "{signature} {time}");
    }
}

#[test]
fn each_scheme_takes_any_of_several_secrets_and_its_own_header_only() {
    use base64::Engine;
    let key = HmacKey::new(b"second");
    let (body, time) = ("{\"ä\": 1 }", "1000");
    let [plain, slack, stripe] =
        [&[][..], b"v0:1000:", b"1000."].map(|before: &[u8]| key.sign(&[before, body.as_bytes()]));
    let base64 = |digest: &Digest| base64::engine::general_purpose::STANDARD.encode(digest);
    let (hex, slack, stripe) = (hex(&plain), hex(&slack), hex(&stripe));
    for (scheme, headers) in [
        ("github", vec![("x-hub-signature-256", format!("sha256={hex}"))]),
        ("bitbucket", vec![("x-hub-signature", format!("sha256={}", hex.to_uppercase()))]),
        ("gitlab", vec![("x-gitlab-token", "second".to_owned())]),
        ("slack", vec![("x-slack-signature", format!("v0={slack}")), ("x-slack-request-timestamp", time.to_owned())]),
        ("stripe", vec![("stripe-signature", format!("t={time}, v1={}, v0={stripe},v1={stripe}", "0".repeat(64)))]),
        ("shopify", vec![("x-shopify-hmac-sha256", base64(&plain))]),
        ("hmac-sha256:X-Sig:hex", vec![("x-sig", hex.clone())]),
        ("hmac-sha256:X-Sig:hex", vec![("x-sig", format!("sha256={hex}"))]),
        ("hmac-sha256:X-Sig:base64", vec![("x-sig", base64(&plain))]),
        ("hmac-sha256:X-Sig:base64", vec![("x-sig", format!("sha256={}", base64(&plain)))]),
    ] {
        let verify = |secrets: &str, headers: &[(&str, String)], body: &str| {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            signed(scheme, secrets, &headers, body, 1000)
        };
        assert_eq!(verify("first\nsecond\n", &headers, body), Ok(()), "{scheme}");
        assert!(verify("first\nthird", &headers, body).is_err(), "{scheme}: another secret");
        assert!(scheme == "gitlab" || verify("second", &headers, "{}").is_err(), "{scheme}: another body");
        for left_out in 0..headers.len() {
            let mut fewer = headers.clone();
            let (name, value) = fewer.remove(left_out);
            assert!(
                verify("second", &fewer, body).is_err_and(|why| why.ends_with(" is missing")),
                "{scheme}: no {name}"
            );
            let twice: Vec<_> = headers.iter().cloned().chain([(name, value)]).collect();
            assert!(
                verify("second", &twice, body).is_err_and(|why| why.ends_with(" is repeated")),
                "{scheme}: two {name}"
            );
        }
    }
    for odd in ["t=1000", "v1=00", "t=1000,t=1000,v1=00", ""] {
        assert!(signed("stripe", "second", &[("stripe-signature", odd)], body, 1000).is_err(), "{odd}");
    }
    let (scheme, file) = Scheme::parse("hmac-sha256:X-Sig:base64:/a:b").unwrap();
    assert_eq!((scheme, file), (Scheme::Hmac { header: "x-sig".into(), encoding: Encoding::Base64 }, "/a:b"));
}

#[test]
fn a_path_of_a_webhook_is_opened_by_its_signature_alone_and_by_whole_segments() {
    let folder = Folder::new("paths");
    folder.write("ci", "t");
    let secrets = Folder::new("paths-secrets");
    let [outer, inner] = ["outer", "inner"].map(|secret| secrets.write(secret, secret));
    let means = format!("tokens={}", folder.path().display());
    let webhooks = [format!("/job/hook/=gitlab:{outer}"), format!("/job/hook/inner=gitlab:{inner}")];
    let auth = auth(&[&means], &[&webhooks[0], &webhooks[1]]);
    let by_secret = |path: &str, secret: &str| {
        verdict(
            &auth,
            Purpose::Dispatch(path),
            &request(&[("x-gitlab-token", secret), ("authorization", "Bearer t")], ""),
        )
    };
    assert_eq!(by_secret("/job/hook", "outer"), Ok(Some("/job/hook".to_owned())));
    assert_eq!(by_secret("/job/hook/x/y", "outer"), Ok(Some("/job/hook".to_owned())));
    assert_eq!(by_secret("/job/hook/inner/x", "inner"), Ok(Some("/job/hook/inner".to_owned())));
    assert_eq!(by_secret("/job/hook/inner", "outer").unwrap_err().0, 401);
    assert_eq!(by_secret("/job/hook/innermost", "outer"), Ok(Some("/job/hook".to_owned())));
    assert_eq!(by_secret("/job/hook", "t").unwrap_err().0, 401);
    for path in ["/job/hooks", "/job", "/job/x/hook"] {
        assert_eq!(by_secret(path, "x"), Ok(Some("ci".to_owned())), "{path}: not the webhook's");
    }
    let head = request(&[("x-gitlab-token", "x")], "");
    assert!(auth.check_head(Purpose::Dispatch("/job/hook"), &head).is_ok(), "its body is awaited");
    assert!(auth.check_head(POST, &head).is_err());
    assert!(auth.check_head(POST, &bearer("t")).is_ok());
    assert!(auth.summary().ends_with("; webhooks /job/hook (gitlab), /job/hook/inner (gitlab)"), "{}", auth.summary());
}

#[test]
fn what_is_public_needs_no_credential() {
    let folder = Folder::new("public");
    folder.write("ci", "t");
    let means = format!("tokens={}", folder.path().display());
    let is_open = |public, purpose| {
        let auth = Auth::new(&[&means], Vec::new(), &[], public).unwrap();
        verdict(&auth, purpose, &request(&[], "")).is_ok()
    };
    let (metrics, docs) = (Public { metrics: true, docs: false }, Public { metrics: false, docs: true });
    assert_eq!([Purpose::Metrics, Purpose::Docs, GET].map(|purpose| is_open(metrics, purpose)), [true, false, false]);
    assert_eq!([Purpose::Metrics, Purpose::Docs, GET].map(|purpose| is_open(docs, purpose)), [false, true, false]);
}
