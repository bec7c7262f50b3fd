//! A reader of OTLP's protobuf, apart from the library that writes it: knows the fields that Narrows may send, and no
//! others (opentelemetry-proto, `collector/trace/v1/trace_service.proto`).

use std::collections::BTreeMap;

/// One span, with what its message says of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) resource: BTreeMap<String, String>,
    /// Name and version.
    pub(crate) scope: (String, String),
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty at the root.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    /// 2 is an error.
    pub(crate) status: u64,
}

pub(crate) const SERVER: u64 = 2;
pub(crate) const CLIENT: u64 = 3;

/// The spans of one message.
pub(crate) fn spans(message: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for (number, resource_spans) in fields(message) {
        assert_eq!(number, 1, "a field of the message");
        let (mut resource, mut scopes) = (BTreeMap::new(), Vec::new());
        for (number, value) in fields(resource_spans.bytes()) {
            match number {
                1 => resource = attributes(value.bytes(), 1),
                2 => scopes.push(value),
                _ => panic!("field {number} of ResourceSpans"),
            }
        }
        for scope_spans in scopes {
            let mut scope = (String::new(), String::new());
            for (number, value) in fields(scope_spans.bytes()) {
                match number {
                    1 => scope = read_scope(value.bytes()),
                    2 => spans.push(span(value.bytes(), &resource, &scope)),
                    _ => panic!("field {number} of ScopeSpans"),
                }
            }
        }
    }
    spans
}

fn read_scope(message: &[u8]) -> (String, String) {
    let mut scope = (String::new(), String::new());
    for (number, value) in fields(message) {
        match number {
            1 => scope.0 = value.text(),
            2 => scope.1 = value.text(),
            _ => panic!("field {number} of InstrumentationScope"),
        }
    }
    scope
}

fn span(message: &[u8], resource: &BTreeMap<String, String>, scope: &(String, String)) -> Span {
    let mut span = Span {
        resource: resource.clone(),
        scope: scope.clone(),
        trace: String::new(),
        id: String::new(),
        parent: String::new(),
        name: String::new(),
        kind: 0,
        start_ns: 0,
        end_ns: 0,
        attributes: attributes(message, 9),
        status: 0,
    };
    for (number, value) in fields(message) {
        match number {
            1 => span.trace = hex::encode(value.bytes()),
            2 => span.id = hex::encode(value.bytes()),
            4 => span.parent = hex::encode(value.bytes()),
            5 => span.name = value.text(),
            6 => span.kind = value.number(),
            7 => span.start_ns = value.number(),
            8 => span.end_ns = value.number(),
            9 | 16 => {}
            15 => {
                for (number, value) in fields(value.bytes()) {
                    assert_eq!(number, 3, "a field of Status");
                    span.status = value.number();
                }
            }
            _ => panic!("field {number} of Span"),
        }
    }
    span
}

/// The attributes in the field of this number.
fn attributes(message: &[u8], wanted: u64) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for (_, value) in fields(message).into_iter().filter(|(number, _)| *number == wanted) {
        let (mut key, mut text) = (String::new(), String::new());
        for (number, value) in fields(value.bytes()) {
            match number {
                1 => key = value.text(),
                2 => {
                    let [(kind, any)] = fields(value.bytes()).try_into().unwrap();
                    text = if kind == 3 { any.number().to_string() } else { any.text() };
                    assert!(matches!(kind, 1 | 3), "kind {kind} of {key}");
                }
                _ => panic!("field {number} of KeyValue"),
            }
        }
        assert!(attributes.insert(key, text).is_none(), "a key is there twice");
    }
    attributes
}

#[derive(Clone, Copy, Debug)]
enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

impl<'m> Value<'m> {
    fn bytes(self) -> &'m [u8] {
        let Self::Bytes(bytes) = self else { panic!("{self:?} is no bytes") };
        bytes
    }

    fn number(self) -> u64 {
        let Self::Number(number) = self else { panic!("{self:?} is no number") };
        number
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
}

/// The fields of a message, in their order, by number.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => Value::Number(u64::from_le_bytes(take(&mut message, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut message);
                Value::Bytes(take(&mut message, usize::try_from(length).unwrap()))
            }
            5 => Value::Number(u32::from_le_bytes(take(&mut message, 4).try_into().unwrap()).into()),
            wire => panic!("wire type {wire}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
    }
    panic!("a varint without end");
}

fn take<'m>(message: &mut &'m [u8], count: usize) -> &'m [u8] {
    let (taken, rest) = message.split_at(count);
    *message = rest;
    taken
}
