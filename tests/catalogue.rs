//! The built-in services: their own rows, and rules that every one of them keeps.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use narrows::credential::{SecretName, is_placeholder};
use narrows::request::{CanonicalPath, EncodedSlash, Host, Scheme};
use narrows::service::{Call, Definition, Route, Router, Service, catalogue};

/// Every built-in service with its suggested credential.
fn services() -> Vec<Service> {
    let with_credential = |definition: &Definition| {
        let credential = definition.suggested_credential().cloned();
        definition.clone().with_credential(credential).build().expect("a service")
    };
    catalogue().iter().map(with_credential).collect()
}

fn router() -> Router {
    Router::new(services()).expect("no two services share a host")
}

/// What a request means: service, operation, action, and the params as `name=value`.
fn meaning(method: &str, host: &str, path: &str, query: Option<&str>) -> (String, String, Option<String>, Vec<String>) {
    let router = router();
    let host = Host::parse(host).expect("a host");
    let Route::Named(named) = router.route(Scheme::Https, &host, 443) else { panic!("{host} is not served") };
    let path = CanonicalPath::parse(path, named.service.encoded_slash()).expect("a path");
    let call = Call { method, host: &host, path: Some(&path), query, websocket: false, body: method == "POST" };
    let found = named.service.classify(&call);
    let params = found.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (named.service.name().to_string(), found.operation.to_owned(), found.action.map(str::to_owned), params)
}

#[test]
fn the_ten_are_there_and_can_be_used_together() {
    let names: Vec<&str> = catalogue().names().collect();
    let ten =
        ["anthropic", "gemini", "github", "gitlab", "huggingface", "linear", "notion", "openai", "slack", "stripe"];
    assert_eq!(names, ten);
    assert_eq!(router().services().len(), names.len());
}

#[test]
fn every_row_holds() {
    for service in services() {
        assert_eq!(service.failed_tests(), [], "{}", service.name());
    }
}

#[test]
fn a_row_that_does_not_hold_is_found() {
    let text = "[[service]]\nname = \"acme\"\nhosts = [\"a.test\"]\n[[service.test]]\nurl = \"https://a.test/\"\n";
    for (row, wrong) in [
        ("operation = \"read\"", None),
        ("operation = \"write\"", Some("the operation is `read`")),
        ("operation = \"read\"\naction = \"x\"", Some("the action is `none`")),
        ("operation = \"read\"\nparams = { a = \"b\" }", Some("the params are []")),
        ("", Some("the operation is `read`")),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let home = narrows::store::Home::at(dir.path()).expect("a home");
        let config = narrows::config::Config::parse(&format!("{text}{row}\n"), &home).expect("sound");
        let failed = config.services.services()[0].failed_tests();
        assert_eq!(failed.len(), usize::from(wrong.is_some()), "{row}: {failed:?}");
        assert!(wrong.is_none_or(|wrong| failed[0].to_string().contains(wrong)), "{failed:?}");
    }
}

#[test]
fn every_placeholder_is_recognised_and_shaped() {
    for service in services() {
        let env = service.env();
        assert!(!env.is_empty(), "{} sets variables", service.name());
        for (name, value) in env {
            let literal = matches!(name, "GIT_TERMINAL_PROMPT" | "HF_HUB_DISABLE_XET");
            assert_eq!(is_placeholder(value.as_bytes()), !literal, "{name}={value}");
        }
    }
}

#[test]
fn without_a_credential_nothing_is_injected_and_no_variable_set() {
    for definition in catalogue().iter() {
        let service = definition.build().expect("a service");
        assert!(service.env().is_empty(), "{}", service.name());
        assert!(service.endpoints().iter().all(|endpoint| endpoint.injection().is_none()), "{}", service.name());
    }
}

#[test]
fn a_credential_never_goes_where_downloads_are_redirected_to() {
    let router = router();
    for host in [
        "codeload.github.com",
        "objects.githubusercontent.com",
        "release-assets.githubusercontent.com",
        "cdn-lfs.huggingface.co",
        "cas-bridge.xethub.hf.co",
    ] {
        let host = Host::parse(host).expect("a host");
        let Route::Named(named) = router.route(Scheme::Https, &host, 443) else { panic!("{host} is not served") };
        assert!(named.endpoint.injection().is_none(), "{host}");
    }
}

#[test]
fn every_service_names_its_sources_and_a_sane_credential() {
    for definition in catalogue().iter() {
        assert!(definition.docs().is_some_and(|docs| docs.starts_with("https://")), "{}", definition.name());
        let suggested = definition.suggested_credential().map(SecretName::as_str);
        assert_eq!(suggested, Some(definition.name()));
    }
}

#[test]
fn reads_do_not_become_writes_by_spelling_nor_writes_reads() {
    // The same method name by GET and by POST.
    for method in ["GET", "POST", "HEAD", "PUT"] {
        assert_eq!(meaning(method, "slack.com", "/api/chat.postMessage", None).1, "write", "{method}");
        assert_eq!(meaning(method, "slack.com", "/api/conversations.history", None).1, "read", "{method}");
    }
    // One letter, one slash, one escape away from a listed read.
    for path in ["/api/conversations.historY", "/api/conversations.history/", "/api/conversations%2Dhistory"] {
        if CanonicalPath::parse(path, EncodedSlash::Refuse).is_ok() {
            assert_eq!(meaning("GET", "slack.com", path, None).1, "write", "{path}");
        }
    }
    assert_eq!(meaning("POST", "api.notion.com", "/v1/search", None).1, "read");
    assert_eq!(meaning("POST", "api.notion.com", "/v1/searches", None).1, "write");
    assert_eq!(meaning("POST", "api.github.com", "/graphql", None).1, "write");
    assert_eq!(meaning("get", "api.github.com", "/user", None).1, "write", "methods have case");
}

#[test]
fn a_param_has_one_spelling_or_none() {
    let params = |path: &str| meaning("GET", "gitlab.com", path, None).3;
    assert_eq!(params("/api/v4/projects/Acme%2fWidgets/issues"), ["project=acme/widgets"]);
    assert_eq!(params("/api/v4/projects/acme%2Fwidgets%2Fissues"), ["project=acme/widgets/issues"]);
    for hidden in ["acme%2F..%2Fother", "acme%2F.%2Fw", "%2Facme", "acme%2F", "a%FFb", "a%C2%85b"] {
        assert!(params(&format!("/api/v4/projects/{hidden}/issues")).is_empty(), "{hidden}");
    }
    let github = |path: &str| meaning("GET", "api.github.com", path, None).3;
    assert_eq!(github("/repos/ACME/Widgets"), ["org=acme", "repo=acme/widgets"].map(String::from).as_slice());
    assert!(github("/repos/acme").is_empty() && github("/repos/acme/").is_empty());
    assert!(github("/Repos/acme/widgets").is_empty());
}
