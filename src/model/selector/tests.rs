//! Selectors: their grammar, what they match, and that they match as Prometheus does.

use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{Condition, MAX_MATCHERS, MAX_SELECTOR_BYTES, Pattern, Selector, SelectorText};
use crate::model::series::{PointLimits, canonicalize};

fn selects(selector: &str, name: &str, labels: &str) -> bool {
    Selector::parse(selector)
        .unwrap_or_else(|error| panic!("{selector}: {error}"))
        .matches(name, labels)
}

#[test]
fn every_spelling_of_a_selector_is_accepted() {
    for text in [
        "up",
        " up ",
        "job:rate5m",
        "up{}",
        "up{job=\"a\"}",
        "up { job = 'a' , }",
        "{__name__=~\"u.*\"}",
        "{__name__=`up`,job!=\"\"}",
        "up{job!~\"b|c\",\n\tinstance=\"\",}",
        "{\"up\"}",
        "{\"up\", \"job\"=\"a\"}",
    ] {
        assert!(selects(text, "up", "job=\"a\"") || text.starts_with("job:"), "{text}");
    }
}

#[test]
fn other_text_is_refused() {
    for text in [
        "",
        "  ",
        "{}",
        "{a=\"\"}",
        "{a!=\"b\"}",
        "{a=~\".*\"}",
        "{a!~\".+\"}",
        "up{",
        "up}",
        "up{a}",
        "up{a=}",
        "up{a=b}",
        "up{,}",
        "up{a=\"b\",,}",
        "up{a=\"b\" c=\"d\"}",
        "up{a==\"b\"}",
        "up{a~\"b\"}",
        "up{a=\"b}",
        "up{a=\"b\n\"}",
        "up{a='b\"}",
        "up{a=\"\\d\"}",
        "up{a=\"\\'\"}",
        "up{a=\"\\x8\"}",
        "up{a=\"\\xff\"}",
        "up{a=\"\\ud800\"}",
        "up{0a=\"b\"}",
        "up{a:b=\"c\"}",
        "0up",
        "up offset 5m",
        "up[5m]",
        "up @ 5",
        "up up",
        "up{__name__=\"down\"}",
        "{\"up\",\"down\"}",
        "up{a=~\"(\"}",
        "up{a=~\"a)|(b\"}",
        "up{a=~\"((a{500}){500}){500}\"}",
    ] {
        assert!(Selector::parse(text).is_err(), "{text}");
    }
}

#[test]
fn limits_are_enforced() {
    let long = format!("up{{a=\"{}\"}}", "x".repeat(MAX_SELECTOR_BYTES));
    assert!(Selector::parse(&long).is_err());
    let many = |n: usize| format!("up{{{}}}", "a=\"b\",".repeat(n));
    assert!(Selector::parse(&many(MAX_MATCHERS - 1)).is_ok());
    assert!(Selector::parse(&many(MAX_MATCHERS)).is_err());
}

#[test]
fn expressions_are_counted_before_they_are_compiled_and_are_bounded() {
    let text = SelectorText::parse("up{a=~\"(\",b!~\"c\",d=\"e\",f!=\"g\"}").expect("readable");
    assert_eq!(text.regexes(), 2);
    assert!(text.compile().is_err());
    assert!(Selector::parse("up{a=~\"[a-z]{1000}\"}").is_ok());
    // Half a MiB.
    assert!(Selector::parse("up{a=~\"[a-z]{10000}\"}").is_err());
}

#[test]
fn an_absent_label_has_the_empty_value() {
    assert!(selects("up{job=\"\"}", "up", ""));
    assert!(selects("up{job!=\"a\"}", "up", ""));
    assert!(selects("up{job=~\"a|\"}", "up", ""));
    assert!(!selects("up{job!=\"\"}", "up", ""));
    assert!(!selects("up{job=~\".+\"}", "up", "instance=\"job\""));
}

#[test]
fn expressions_are_anchored_and_match_line_feeds() {
    assert!(!selects("up{a=~\"b\"}", "up", "a=\"abc\""));
    assert!(!selects("up{a=~\"a|b\"}", "up", "a=\"ab\""));
    assert!(selects("up{a=~\"a.b\"}", "up", "a=\"a\\nb\""));
    assert!(selects("up{a!~\"b\"}", "up", "a=\"abc\""));
}

#[test]
fn escapes_are_those_of_go() {
    let labels = "a=\"q\\\"b\\\\n\\n\u{e9}\u{1f600}\"";
    assert!(selects(r#"up{a="q\"b\\n\n\u00e9\U0001f600"}"#, "up", labels));
    assert!(selects(r#"up{a='q"\x62\134n\012é😀'}"#, "up", labels));
    assert!(selects("up{a=`q\"b\\n\né😀`}", "up", labels));
    assert!(selects(r#"up{a='\'\t\xc3\xa9'}"#, "up", "a=\"'\té\""));
}

#[test]
fn a_selector_lists_the_names_that_it_requires() {
    for (text, names) in [
        ("up{a=\"b\"}", Some(vec!["up"])),
        ("{a=\"b\",__name__=\"up\"}", Some(vec!["up"])),
        ("{__name__=~\"up\"}", Some(vec!["up"])),
        ("{__name__=~\"up|job:down\",__name__!=\"up\"}", Some(vec!["up", "job:down"])),
        ("{__name__=~\"up|b\",__name__=\"up\"}", Some(vec!["up"])),
        ("{__name__=~\"up.*\"}", None),
        ("{__name__!=\"up\",a=\"b\"}", None),
        ("{a=\"up\"}", None),
    ] {
        let selector = Selector::parse(text).expect("valid");
        assert_eq!(selector.names(), names, "{text}");
        for name in names.unwrap_or_default() {
            let excluded = text.contains("!=\"up\"") && name == "up";
            assert_eq!(selector.matches_name(name), !excluded, "{text} {name}");
        }
    }
}

/// Values that collide often, with all that is escaped.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ab\"\\\\\n,={}é]{0,3}"]
}

fn quoted(value: &str) -> String {
    format!("{value:?}").replace("\\u{e9}", "é")
}

proptest! {
    #[test]
    fn matching_agrees_with_a_naive_model(
        series in [value(), value(), value()],
        wanted in proptest::collection::vec(("[abcd]", 0_u8..4, value()), 1..5),
    ) {
        let mut labels: Vec<(&str, &str)> =
            ["a", "b", "c"].into_iter().zip(series.iter().map(String::as_str)).collect();
        let mut canonical = String::new();
        canonicalize(&mut labels, &PointLimits::default(), &mut canonical).expect("valid");

        let mut text = String::from("up{");
        let mut expected = true;
        for (label, operator, value) in &wanted {
            let held = match label.as_str() {
                "a" => &series[0],
                "b" => &series[1],
                "c" => &series[2],
                _ => "",
            };
            expected &= (held == value) == operator.is_multiple_of(2);
            let literal = if *operator < 2 { value.clone() } else { regex::escape(value) };
            let operator = ["=", "!=", "=~", "!~"][usize::from(*operator)];
            text.push_str(&format!("{label} {operator} {},", quoted(&literal)));
        }
        text.push('}');
        let selector = Selector::parse(&text).expect("a selector");
        prop_assert_eq!(selector.matches("up", &canonical), expected, "{} {}", text, canonical);
        prop_assert!(!selector.matches("down", &canonical));
    }

    #[test]
    fn a_string_reads_back_as_it_was_quoted(value in "\\PC*|[\\x00-\\x7f]{0,20}") {
        let escaped: String = value.chars().map(|c| format!("\\U{:08x}", c as u32)).collect();
        let text = format!("{{a=\"x{escaped}\"}}");
        let selector = Selector::parse(&text).expect("a selector");
        let Condition::Equal(read) = &selector.matchers[0].condition else {
            panic!("an equality was written")
        };
        prop_assert_eq!(&read[1..], value);
    }

    #[test]
    fn no_text_panics(text in "[a-b{}=~!\"'`\\\\,\n x0-9éu]{0,24}|\\PC{0,16}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn no_expression_panics(text in "[ab\\\\QEpPxsdwW{}()?<>:|*+^$.\\[\\]&~,0-9iUé-]{0,16}|\\PC{0,12}") {
        let _ = Pattern::compile(text);
    }
}

/// Expressions, values that they match, and values that they do not. `promtool test rules` of Prometheus 2.42
/// agrees with each row, except that `(?<name>` and a `.` that matches line feeds came later.
const LIKE_PROMETHEUS: &[(&str, &[&str], &[&str])] = &[
    (r"\w+", &["a_9Z"], &["é", "ſ", "a-b", ""]),
    (r"\W", &["é", "-", "\n"], &["a", "_"]),
    (r"\d+", &["0189"], &["٣", "a"]),
    (r"\D", &["٣", "x"], &["3"]),
    (r"\s", &[" ", "\t", "\n", "\u{c}", "\r"], &["\u{b}", "\u{a0}", "\u{2003}"]),
    (r"\S", &["\u{b}", "\u{a0}", "x"], &[" ", "\n"]),
    (r"[\w-]+", &["a-b"], &["é", "."]),
    (r"[^\d]", &["x", "٣"], &["7"]),
    (r"[\W\d]+", &["7é-"], &["a"]),
    ("[a&&b]+", &["a&b"], &["c"]),
    ("[a-c--b]+", &["a", "b", "c", "-"], &["d"]),
    ("[a~~b]+", &["a~b"], &["c"]),
    ("[[a]", &["[", "a"], &["b", "]"]),
    ("[a[b]]", &["a]", "[]", "b]"], &["a", "b"]),
    ("[]a]+", &["]a"], &["b"]),
    ("[^]a]", &["b"], &["]", "a"]),
    ("[a-]+", &["a-"], &["b"]),
    ("[+-.]+", &["+,-."], &["*", "/"]),
    ("[[:alpha:]]+", &["aZ"], &["é", "1"]),
    ("[[:^alpha:]]", &["é", "1"], &["a"]),
    ("[[:word:]-]+", &["a_1-"], &["é"]),
    (r"\Qa.b*\E+", &["a.b*", "a.b***"], &["aab", "a.ba.b*"]),
    (r"a\bb|a\b-", &["a-"], &["ab"]),
    (r"é\B-|é\b-", &["é-"], &["é"]),
    (r"é\b-", &[], &["é-"]),
    (r"\x41\x{42}\103\07", &["ABC\u{7}"], &["ABC"]),
    (r"\a\f\v\t", &["\u{7}\u{c}\u{b}\t"], &[""]),
    (r"\<a\>\_\-\ ", &["<a>_- "], &["a"]),
    ("a{,2}", &["a{,2}"], &["a", "aa"]),
    ("a{x}b{", &["a{x}b{"], &["a"]),
    ("a{02}", &["a{02}"], &["aa"]),
    ("a{2}|a{3,}", &["aa", "aaa", "aaaa"], &["a"]),
    ("(?i)straSSE|k", &["STRASSE", "\u{212a}", "ſtrasse"], &["straße"]),
    (r"(?i)\w", &["\u{212a}", "ſ"], &["é"]),
    (r"(?i)[^\w]", &["é"], &["\u{212a}", "k"]),
    ("a.b", &["a\nb"], &["ab"]),
    ("(?-s)a.b", &["a-b"], &["a\nb"]),
    ("(?m)a$\n^b", &["a\nb"], &["ab"]),
    ("a$\nb", &[], &["a\nb"]),
    (r"(?P<x>a)(?<x>b)(?:c)(?i:D)", &["abcd", "abcD"], &["Abcd"]),
    (r"\pL\p{Lu}\p{Greek}\PL\p{^Greek}", &["aAα1a"], &["aaα1a", "aAα1α"]),
    ("a||b", &["a", "", "b"], &["ab"]),
    ("x*?y+?", &["xxyy", "y"], &["x"]),
    ("#&~", &["#&~"], &[""]),
    ("]}", &["]}"], &["]"]),
];

/// Expressions that Prometheus refuses, and at the end those that it accepts and that are refused here.
const REFUSED: &[&str] = &[
    "(",
    ")",
    "a)|(b",
    "[",
    "[a",
    "[]",
    "[^]",
    "[b-a]",
    r"[a-\d]",
    "[[:wrong:]]",
    "*",
    "a|*",
    "(+)",
    "a**",
    "a+*",
    "a{2}{3}",
    "a*??",
    "a{1001}",
    "a{3,2}",
    "(?x)a b",
    "(?u)a",
    "(?-u:a)",
    "(?=a)",
    "(?<=a)b",
    r"x\Q[y",
    "(?P<>a)",
    "(?P=a)",
    "(?i-)a",
    r"\",
    r"\1",
    r"\8",
    r"\E",
    r"\C",
    r"\Z",
    r"\G",
    r"\h",
    r"\u0041",
    r"\x4",
    r"\x{110000}",
    r"[\b]",
    r"[\Qa\E]",
    r"\p{Alphabetic}",
    r"\p{greek}",
    r"\p{Wrong}",
    r"\pX",
    // Accepted by Prometheus.
    r"\pC",
    r"\p{Cs}",
    "a(?i)*",
];

#[test]
fn expressions_match_as_in_prometheus() {
    for (pattern, matching, others) in LIKE_PROMETHEUS {
        let compiled = Pattern::compile((*pattern).to_owned());
        let compiled = compiled.unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for value in *matching {
            assert!(compiled.matches(value), "{pattern} matches {value:?}");
        }
        for value in *others {
            assert!(!compiled.matches(value), "{pattern} does not match {value:?}");
        }
    }
    for pattern in REFUSED {
        assert!(Pattern::compile((*pattern).to_owned()).is_err(), "{pattern}");
    }
}
