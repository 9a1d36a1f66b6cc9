//! What becomes of names and values.

use super::*;

fn show(value: &Value<'_>) -> String {
    match value {
        Value::Absent => "-".into(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Map(map) => show_map(map),
    }
}

fn show_map(map: &Map<'_>) -> String {
    let pairs = map.iter().map(|(name, value)| format!("{name}:{}", show(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(" "))
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let found = match Parameters::of_form(text.as_bytes()) {
        Ok(parameters) if !parameters.is_utf8() => "not utf-8".into(),
        Ok(parameters) => show_map(&parameters.map),
        Err(error) => format!("{error:?}"),
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn pairs() {
    check("", "{}");
    check("a=1&b=2", r#"{a:"1" b:"2"}"#);
    check("a=1&b=2&a=3", r#"{a:"3" b:"2"}"#);
    check("a=1=2&b&c=", r#"{a:"1=2" b:- c:""}"#);
    check("&&&=&=x&  a=1", r#"{a:"1"}"#);
    check("a=1;b=2", r#"{a:"1;b=2"}"#);
    check("%61=%62+c&%C3%A9=1", r#"{a:"b c" é:"1"}"#);
    check("a=%zz", "Escape");
    check("a=%", "Escape");
    check("%4=1", "Escape");
    check("a=%ff", "not utf-8");
    check("a[%ff]=1", "not utf-8");
}

#[test]
fn names_nest() {
    check("usage[hits]=1&usage[mail]=2", r#"{usage:{hits:"1" mail:"2"}}"#);
    check("usage%5Bhits%5D=1", r#"{usage:{hits:"1"}}"#);
    check("a[b][c]=1&a[b][d]=2", r#"{a:{b:{c:"1" d:"2"}}}"#);
    check("a[]=1&a[]=2", r#"{a:["1" "2"]}"#);
    check("a[][b]=1&a[][c]=2&a[][b]=3", r#"{a:[{b:"1" c:"2"} {b:"3"}]}"#);
    check("a[][b][c]=1&a[][b][c]=2", r#"{a:[{b:{c:"1"}} {b:{c:"2"}}]}"#);
    check("a[b][]=1&a[b][]=2", r#"{a:{b:["1" "2"]}}"#);
    check("a[][]=1", r#"{a:[["1"]]}"#);
    check("a&a[b]=1", r#"{a:{b:"1"}}"#);
    check("a[b]", r#"{a:{b:-}}"#);
}

#[test]
fn odd_names() {
    check("[a]=1&[=2&[]=3", r#"{[a]:"1" [:"2" []:"3"}"#);
    check("usage[hits=2", r#"{usage:{[hits:"2"}}"#);
    check("a[=1", r#"{a[:"1"}"#);
    check("a]=1", r#"{a]:"1"}"#);
    check("a[b]c=1", r#"{a:{b:{c:"1"}}}"#);
    check("a[0]b[c]=1&a[0]b[d]=2&a[0]e[f=3", r#"{a:{0:{b:{c:"1" d:"2"} e:{[f:"3"}}}}"#);
    check("a[]b[c]=1&a[]b[c]=2", r#"{a:[{b:{c:"1"}} {b:{c:"2"}}]}"#);
    check("a[é]=1", r#"{a:{é:"1"}}"#);
}

#[test]
fn shapes_that_contradict() {
    check("usage[]=1&usage[hits]=1", "Conflict");
    check("usage[hits]=1&usage[]=1", "Conflict");
    check("usage=1&usage[hits]=1", "Conflict");
    check("a=1&a[]=1", "Conflict");
    check("a[b]=1&a=2", r#"{a:"2"}"#);
}

#[test]
fn bounds() {
    let nested = |depth| format!("a{}=1", "[b]".repeat(depth));
    assert!(Parameters::of_form(nested(31).as_bytes()).is_ok());
    check(&nested(32), "TooDeep");
    check(&nested(100_000), "TooDeep");
    let many = |count| vec!["x=1"; count].join("&");
    assert!(Parameters::of_form(many(4_096).as_bytes()).is_ok());
    check(&many(4_097), "TooMany");
    let nests = |count: usize| (0..count).map(|n| format!("a{n}[b]=1")).collect::<Vec<_>>().join("&");
    assert!(Parameters::of_query(&nests(2_048)).is_ok());
    assert_eq!(Parameters::of_query(&nests(2_049)).err(), Some(ParameterError::TooNested));
    assert!(Parameters::of_form(nests(2_049).as_bytes()).is_ok());
    check(
        &(0..1_000).map(|n| format!("a{n}{}=1", "[b]".repeat(9))).collect::<Vec<_>>().join("&"),
        "TooNested",
    );
    let long = |bytes: usize| format!("x={}", "y".repeat(bytes - 2));
    assert!(Parameters::of_form(long(4 << 20).as_bytes()).is_ok());
    check(&long((4 << 20) + 1), "TooLong");
}
