//! What is redacted and what is kept.

use super::detect::MARK;
use super::*;
use proptest::prelude::*;

/// A secret of each rule, put together at run time so that no scanner takes this file for a leak.
fn examples() -> Vec<(&'static str, String)> {
    let random = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz";
    let hex = "0123456789abcdef0123456789abcdef";
    let block = |name: &str| {
        format!("-----BEGIN {name}-----\n{random}{random}\n{random}==\n-----END {name}-----")
    };
    vec![
        ("private-key", block("RSA PRIVATE KEY")),
        ("private-key", block("PGP PRIVATE KEY BLOCK")),
        (
            "private-key",
            format!("-----BEGIN PRIVATE KEY-----\n{random}{random}\n{random}{random}\nabc"),
        ),
        (
            "private-key",
            format!("{random}\n{random}\n-----END EC PRIVATE KEY-----"),
        ),
        (
            "private-key",
            block("OPENSSH PRIVATE KEY").replace('\n', "\\n"),
        ),
        (
            "age-secret-key",
            format!("AGE-SECRET-KEY-1{}", "Q9X8".repeat(15)),
        ),
        ("jwt", format!("eyJ{random}.eyJ{random}.{random}")),
        ("aws-access-key", format!("AKIA{}", "IOSFODNN7EXAMPL2")),
        ("github-token", format!("ghp_{random}{random}")),
        ("github-token", format!("github_pat_{random}_{random}")),
        ("gitlab-token", format!("glpat-{random}")),
        ("slack-token", format!("xoxb-1234567890-{random}")),
        (
            "slack-webhook",
            format!("https://hooks.slack.com/services/T0/B0/{random}"),
        ),
        ("stripe-key", format!("sk_live_{random}")),
        ("anthropic-key", format!("sk-ant-api03-{random}-{random}")),
        ("openai-key", format!("sk-proj-{random}")),
        ("google-key", format!("AIza{}xx", random)),
        ("model-key", format!("hf_{random}abcd")),
        ("registry-token", format!("npm_{}abcd", &random[..32])),
        ("cloud-token", format!("dop_v1_{hex}{hex}")),
        ("azure-secret", format!("AccountKey={random}{random}==")),
        ("service-token", format!("SG.{random}.{random}")),
        (
            "authorization",
            "Authorization: Basic dXNlcjpwYXNz".to_owned(),
        ),
        ("bearer-token", format!("sent Bearer {random}")),
        (
            "url-credentials",
            "postgres://app:p@ss/w@db/x".replace("p@ss/w", "pa@ssw"),
        ),
        (
            "curl-user",
            "curl -s -u admin:hunter2 https://example.org".to_owned(),
        ),
        ("assigned-password", "PGPASSWORD=hunter2".to_owned()),
        (
            "assigned-password",
            r#"{"password": "correct-horse-1"}"#.to_owned(),
        ),
        ("assigned-password", "mysql --password s3cretly".to_owned()),
        ("assigned-secret", format!("API_KEY={random}")),
        (
            "assigned-secret",
            format!(r#""client_secret": "{random}","#),
        ),
        (
            "assigned-secret",
            format!(r#"\"aws_secret_access_key\": \"{random}\""#),
        ),
        ("assigned-secret", format!("export SECRET_KEY_BASE='{hex}'")),
        ("assigned-secret", format!("tool --auth-token {random}")),
    ]
}

#[test]
fn every_rule_redacts_its_example() {
    let examples = examples();
    for (name, text) in &examples {
        let around = format!("before {text}\nafter");
        let redacted = redact(&around);
        let mark = format!("[REDACTED-{}]", name.to_ascii_uppercase());
        assert!(
            redacted.contains(&mark),
            "{name}: {text:?} became {redacted:?}"
        );
        assert!(
            redacted.starts_with("before ") && redacted.ends_with("after"),
            "{redacted:?}"
        );
        for secret in [
            "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz",
            "hunter2",
            "0123456789abcdef0123",
            "dXNlcjpwYXNz",
            "pa@ssw",
        ] {
            assert!(!redacted.contains(secret), "{name}: {redacted:?}");
        }
    }
    for (name, what) in RULES {
        assert!(
            examples.iter().any(|(of, _)| of == name),
            "no example of {name}"
        );
        assert!(!what.is_empty());
    }
}

#[test]
fn text_around_a_secret_is_kept() {
    assert_eq!(
        redact("DB=postgres://app:s3cr3t@db:5432/x token: None"),
        "DB=postgres://app:[REDACTED-URL-CREDENTIALS]@db:5432/x token: None"
    );
    assert_eq!(
        redact("export TOKEN=abcDEF123456ghi; next"),
        "export TOKEN=[REDACTED-ASSIGNED-SECRET]; next"
    );
}

#[test]
fn text_that_resembles_a_secret_is_kept() {
    let harmless = [
        "",
        "ok",
        "commit 3915b89c0ffee1234567890abcdef1234567890a merged",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "id 550e8400-e29b-41d4-a716-446655440000 and 01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "VGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVyIHRoZSBsYXp5IGRvZw==",
        "/home/me/projects/token/src/secret.rs:12:34",
        "token: src/parser/token.rs:12",
        "error: unexpected token: `foo`",
        "secret: &'static str, password: String, api_key: Option<String>",
        "let token = self.tokens.next2(peeked); password = read_password1()",
        "password: ${DB_PASSWORD} token=$GITHUB_TOKEN1 secret={{ secrets.KEY1 }}",
        "api_key: <your-key-here-123> password=******** token=xxxxxxxxxxxx1",
        "max_tokens: 4096, token_count=123456789012, tokenizer=cl100k_base_v2",
        "https://example.org:8080/a@b https://user@example.org git@github.com:me/x.git",
        "http://localhost:3000/path?x=y@z",
        "postgres://app:${PASSWORD}@db/x",
        "<div class=\"sk-spinner-container-loading-wrapper\">",
        "test auth::token::tests::refreshes_after_30_minutes ... ok",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "the bearer of this letter, Bearer authentication",
        "AKIA is the prefix; ghp_ too",
        "Ünïcödé: pässwörd = ключ",
    ];
    for text in harmless {
        assert_eq!(redact(text), text);
    }
}

#[test]
fn a_long_text_of_names_without_values_takes_linear_time() {
    let text = "token: password= secret=> ://a:b curl -u bearer ".repeat(20_000);
    assert_eq!(redact(&text), text.as_str());
}

proptest! {
    #[test]
    fn redacting_any_text_is_idempotent(text in any::<String>()) {
        let once = redact(&text);
        prop_assert_eq!(redact(&once), once);
    }

    #[test]
    fn secrets_in_any_surroundings_are_redacted_once(
        parts in prop::collection::vec((0..34_usize, "[ -~é\n]{0,12}"), 1..6),
    ) {
        let examples = examples();
        let text: String = parts
            .iter()
            .map(|(index, between)| format!("{} {between} ", examples[index % examples.len()].1))
            .collect();
        let once = redact(&text);
        prop_assert!(once.contains(MARK));
        prop_assert_eq!(redact(&once), once);
    }

    #[test]
    fn words_and_numbers_are_kept(words in prop::collection::vec("[a-z]{1,12}|[0-9]{1,7}", 0..40)) {
        let text = words.join(" ");
        prop_assert_eq!(redact(&text), text.as_str());
    }
}

#[test]
fn parts_join_to_the_redacted_whole() {
    for (name, secret) in examples() {
        let text = format!("é {secret} and {secret}\nö");
        let scan = Scan::of(&text);
        let whole = redact(&text);
        for (at, _) in text.char_indices() {
            let (head, tail) = (scan.part(0..at), scan.part(at..text.len()));
            assert_eq!(
                whole,
                format!("{head}{tail}").as_str(),
                "{name} cut at {at}"
            );
        }
    }
}
