//! `[[service.test]]`: a request and what the service must say about it, beside the routes that say it.

use super::document::Table;
use super::{Call, Origin, Problem, Service};
use crate::request::{CanonicalPath, Target, Text};

/// One row. What it does not name is not compared, but for `action` and `params`: absent means none.
#[derive(Debug, Clone)]
pub struct TestRow {
    method: Box<str>,
    url: Box<str>,
    websocket: bool,
    body: bool,
    operation: Option<Box<str>>,
    action: Option<Box<str>>,
    params: Vec<(Text, Text)>,
    /// Whether the host must, or must not, be one that the credential goes to.
    injected: Option<bool>,
    origin: Origin,
}

pub(crate) fn read(table: &mut Table<'_, '_>, service: &str, origin: &Origin) -> Vec<TestRow> {
    let mut rows = Vec::new();
    for mut row in table.tables("test", &format!("[[service.test]] of \"{service}\"")) {
        let method = row.text("method").map_or("GET", |field| field.value);
        let url = row.text("url").map(|field| field.value);
        let flag = |field: Option<super::document::Field<bool>>| field.is_some_and(|field| field.value);
        let websocket = flag(row.flag("websocket"));
        let body = flag(row.flag("body"));
        let injected = row.flag("injected").map(|field| field.value);
        let operation = row.text("operation").map(|field| field.value.into());
        let action = row.text("action").map(|field| field.value.into());
        let params = row.text_map("params");
        let params = params.into_iter().map(|(name, value)| (name.value.into(), value.value.into())).collect();
        let origin = Origin { file: origin.file.clone(), line: row.document().line(row.at().start) };
        match url {
            Some(url) => rows.push(TestRow {
                method: method.into(),
                url: url.into(),
                websocket,
                body,
                operation,
                action,
                params,
                injected,
                origin,
            }),
            None => row.problem("a [[service.test]] has no `url`", None),
        }
        row.finish();
    }
    rows
}

impl TestRow {
    /// What is wrong when the row is put to the service.
    pub(crate) fn check(&self, service: &Service) -> Option<Problem> {
        self.difference(service).map(|message| Problem {
            file: (&*self.origin.file).into(),
            line: Some(self.origin.line),
            key: Some("test".into()),
            message: format!("service \"{}\": {} {}: {message}", service.name, self.method, self.url),
            hint: None,
        })
    }

    fn difference(&self, service: &Service) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("https", &self.url));
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = if path.is_empty() { "/" } else { path };
        let target = match Target::parse_or(authority, if scheme == "http" { 80 } else { 443 }) {
            Ok(target) => target,
            Err(error) => return Some(error.to_string()),
        };
        let Some(endpoint) = service.endpoint_of(&target.host) else { return self.unserved(&target) };
        let path = match CanonicalPath::parse(path, service.encoded_slash) {
            Ok(path) => path,
            Err(error) => return Some(error.to_string()),
        };
        let call = Call {
            method: &self.method,
            host: &target.host,
            path: Some(&path),
            query,
            websocket: self.websocket,
            body: self.body,
        };
        let found = service.classify(&call);
        let mut params: Vec<_> = found.params.iter().map(|(name, value)| (&**name, &**value)).collect();
        params.sort_unstable();
        let wanted: Vec<_> = self.params.iter().map(|(name, value)| (&**name, &**value)).collect();
        if self.operation.as_deref().is_none_or(|operation| operation != found.operation) {
            return Some(format!("the operation is `{}`", found.operation));
        }
        if self.action.as_deref() != found.action {
            return Some(format!("the action is `{}`", found.action.unwrap_or("none")));
        }
        if params != wanted {
            return Some(format!("the params are {params:?}"));
        }
        let injected = endpoint.injection.is_some();
        let differs = service.credential.is_some() && self.injected.is_some_and(|wanted| wanted != injected);
        differs.then(|| format!("the credential goes there: {injected}"))
    }

    /// A row without an operation says that the service does not serve the host.
    fn unserved(&self, target: &Target) -> Option<String> {
        self.operation.as_ref().map(|_| format!("{target} is not one of its hosts"))
    }
}
