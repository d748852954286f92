//! The rules by which secrets are recognised.

/// What must hold of a match beside its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Nothing: only secrets have this shape.
    Shape,
    /// It looks random, because some words have this shape too.
    Random,
    /// It is no placeholder, because only a secret or a placeholder stands in this position.
    NoPlaceholder,
    /// It is assigned to a name such as `api_key`: it looks random and is neither code nor a path.
    AssignedSecret,
    /// It is assigned to a name such as `password`: as above, but people choose less random ones.
    AssignedPassword,
}

/// One rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Its name; the replacement has it in capitals.
    pub(super) name: &'static str,
    /// What it finds, for people.
    pub(super) what: &'static str,
    /// What must hold of a match.
    pub(super) check: Check,
    /// The secret's shape: the first group that takes part is the secret, without one the whole match is.
    pub(super) pattern: &'static str,
}

/// Shorthand for one line of the table.
const fn rule(name: &'static str, what: &'static str, check: Check, pattern: &'static str) -> Rule {
    Rule {
        name,
        what,
        check,
        pattern,
    }
}

/// Names of secrets that people choose.
macro_rules! password {
    () => {
        r"(?:passw(?:or)?d|passphrase|pwd)(?:_[0-9A-Za-z]{1,12})?"
    };
}

/// Names of secrets that machines make.
macro_rules! secret {
    () => {
        r"(?:(?:api|access|auth|private|signing|encryption|master)[_.-]?key|secret|token|credentials?|auth)(?:[_-](?:key|base|value|live|prod|dev|test|[0-9]{1,2}))*"
    };
}

/// What separates a name from its value in code, in config files and in JSON within JSON.
macro_rules! assigned {
    () => {
        r#"(?:\\?["'])?(?-u:[ \t]*)(?::=|=>|:|=)(?-u:[ \t]*)(?:\\?["'`])?"#
    };
}

use Check::{AssignedPassword, AssignedSecret, NoPlaceholder, Random, Shape};

/// Every rule, the special ones before the general ones: each works on the text that the rules before it left.
///
/// Boundaries and classes are ASCII, so that the whole set runs on the lazy DFA; no bound on repetitions where none is
/// needed, so that it stays small.
pub(super) const TABLE: &[Rule] = &[
    rule(
        "private-key",
        "private key blocks (PEM, OpenSSH, PGP), whole or cut at either end",
        Shape,
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:(?s:.*?)-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|(?:(?-u:\s|\\n|\\r)*[0-9A-Za-z+/]{32,}={0,2})+(?:(?-u:\s|\\n|\\r)*[0-9A-Za-z+/=]{1,31}\z)?)|(?:[0-9A-Za-z+/=]{1,76}(?:\r?\n|\\n))+-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
    ),
    rule(
        "age-secret-key",
        "age identities",
        Shape,
        r"AGE-SECRET-KEY-1[0-9A-Z]{40,}",
    ),
    rule(
        "jwt",
        "JSON web tokens",
        Shape,
        r"(?-u:\b)eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]*",
    ),
    rule(
        "aws-access-key",
        "AWS access key ids",
        Shape,
        r"(?-u:\b)(?:A3T[0-9A-Z]|AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?-u:\b)",
    ),
    rule(
        "github-token",
        "GitHub tokens (ghp_, gho_, ghu_, ghs_, ghr_, github_pat_)",
        Shape,
        r"(?:gh[pousr]_[0-9A-Za-z]{30,}|github_pat_[0-9A-Za-z_]{30,})",
    ),
    rule(
        "gitlab-token",
        "GitLab tokens (glpat-, gldt-, glrt-, glcbt-, glptt-, glft-, glimt-, glagent-, glsoat-, gloas-)",
        Shape,
        r"(?-u:\b)gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas)-[0-9A-Za-z_.-]{18,}",
    ),
    rule(
        "slack-token",
        "Slack tokens (xoxb-, xoxp-, xapp- and kin)",
        Shape,
        r"(?-u:\b)(?:xox[abceoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}|xapp-[0-9]-[0-9A-Za-z-]{10,})",
    ),
    rule(
        "slack-webhook",
        "Slack webhook addresses",
        Shape,
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([0-9A-Za-z+/]{20,})",
    ),
    rule(
        "stripe-key",
        "Stripe secret and restricted keys, webhook secrets",
        Shape,
        r"(?-u:\b)(?:(?:sk|rk)_(?:live|test|prod)_[0-9A-Za-z]{10,}|whsec_[0-9A-Za-z+/=]{24,})",
    ),
    rule(
        "anthropic-key",
        "Anthropic keys (sk-ant-)",
        Shape,
        r"(?-u:\b)sk-ant-[0-9A-Za-z_-]{20,}",
    ),
    rule(
        "openai-key",
        "OpenAI keys and those of the same shape (sk-, sk-proj-, sk-svcacct-, sk-admin-, sk-or-)",
        Random,
        r"(?-u:\b)sk-[0-9A-Za-z_-]{20,}",
    ),
    rule(
        "google-key",
        "Google API keys, OAuth client secrets and access tokens",
        Shape,
        r"(?-u:\b)(?:AIza[0-9A-Za-z_-]{35}|GOCSPX-[0-9A-Za-z_-]{20,}|ya29\.[0-9A-Za-z_-]{20,})",
    ),
    rule(
        "model-key",
        "keys of other model services (Hugging Face, Groq, xAI, Perplexity, Replicate)",
        Random,
        r"(?-u:\b)(?:hf_[0-9A-Za-z]{30,}|gsk_[0-9A-Za-z]{40,}|xai-[0-9A-Za-z]{60,}|pplx-[0-9A-Za-z]{40,}|r8_[0-9A-Za-z]{35,})",
    ),
    rule(
        "registry-token",
        "tokens of package registries (of Node, Python, Rust, Ruby and Docker)",
        Shape,
        r"(?-u:\b)(?:npm_[0-9A-Za-z]{36}|pypi-AgE[0-9A-Za-z_-]{40,}|cio[0-9A-Za-z]{32}(?-u:\b)|dckr_[a-z]{3}_[0-9A-Za-z_-]{20,}|rubygems_[0-9a-f]{48})",
    ),
    rule(
        "cloud-token",
        "tokens of hosting services (DigitalOcean, Databricks, Vault, Supabase, PlanetScale, Fly, Heroku, Tailscale, Doppler, Cloudflare origin)",
        Shape,
        r"(?-u:\b)(?:do[opr]_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}(?-u:\b)|hv[sb]\.[0-9A-Za-z_-]{24,}|sbp_[0-9a-f]{40}|pscale_(?:tkn|pw|oauth)_[0-9A-Za-z_=.-]{30,}|fm[12][ar]?_[0-9A-Za-z+/=]{60,}|fo1_[0-9A-Za-z_-]{40,}|HRKU-[0-9A-Za-z_-]{30,}|tskey-[a-z]{3,}-[0-9A-Za-z-]{16,}|dp\.(?:pt|st|ct|sa|scim|audit)\.[0-9A-Za-z._-]{40,}|v1\.0-[0-9a-f]{24}-[0-9a-f]{100,})",
    ),
    rule(
        "azure-secret",
        "Azure client secrets and storage account keys",
        Shape,
        r"(?-u:\b)[0-9A-Za-z_~.]{3}[0-9]Q~[0-9A-Za-z_~.-]{31,34}|(?:AccountKey|SharedAccessKey)=([0-9A-Za-z+/]{40,}={0,2})",
    ),
    rule(
        "service-token",
        "tokens of services (SendGrid, Twilio, Telegram, Shopify, Linear, Notion, Atlassian, Grafana, Sentry, Postman, 1Password, New Relic)",
        Shape,
        r"(?-u:\b)(?:SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}|SK[0-9a-f]{32}(?-u:\b)|[0-9]{8,10}:AA[0-9A-Za-z_-]{32,}|shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}|lin_(?:api|oauth)_[0-9A-Za-z]{32,}|ntn_[0-9A-Za-z]{40,}|ATATT3[0-9A-Za-z_=-]{60,}|gl(?:sa|c)_[0-9A-Za-z_+/=]{32,}|sntry[su]_[0-9A-Za-z_+/=]{40,}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|ops_eyJ[0-9A-Za-z+/=_-]{100,}|NRAK-[0-9A-Z]{27})",
    ),
    rule(
        "authorization",
        "the value of an Authorization header, and bearer tokens anywhere",
        NoPlaceholder,
        r#"(?i-u:\bauthorization["']?[ \t]*[:=][ \t]*["']?(?:bearer|basic|token|digest|apikey|negotiate)[ \t]+([0-9a-z._~+/=-]{8,}))"#,
    ),
    rule(
        "bearer-token",
        "bearer tokens outside of a header",
        Random,
        r"(?i-u:\bbearer[ \t]+([0-9a-z._~+/=-]{20,}))",
    ),
    rule(
        "url-credentials",
        "the password of `user:password@` in an address",
        NoPlaceholder,
        r#"(?-u:[0-9A-Za-z+.-])://[^\s/@:"'<>`]*:([^\s/"'<>`]+)@"#,
    ),
    rule(
        "curl-user",
        "the password given to curl by -u or --user",
        NoPlaceholder,
        r#"(?-u:\bcurl\b)[^\n]*?(?-u:[ \t])(?:-u|--user|--proxy-user)(?-u:[ \t=]+)["']?[^\s:"']+:([^\s"']{3,})"#,
    ),
    rule(
        "assigned-password",
        "what is assigned to a name that ends in password, passwd, pwd or passphrase",
        AssignedPassword,
        concat!(
            r"(?i-u:",
            password!(),
            r")",
            assigned!(),
            r#"([^\s"'`<>(),;\\\[\]{}]{6,})|--(?-u:[\w-])*?(?i-u:"#,
            password!(),
            r#")[ \t]+["']?([^\s"'`<>(),;\\\[\]{}]{6,})"#,
        ),
    ),
    rule(
        "assigned-secret",
        "what is assigned to a name that ends in key, secret, token or credential and looks random",
        AssignedSecret,
        concat!(
            r"(?i-u:",
            secret!(),
            r")",
            assigned!(),
            r"([0-9A-Za-z_.+/=~:@!$%^&*-]{10,})|--(?-u:[\w-])*?(?i-u:",
            secret!(),
            r#")[ \t]+["']?([0-9A-Za-z_.+/=~:@!$%^&*-]{10,})"#,
        ),
    ),
];

/// Every rule with what it finds, for people.
pub const RULES: &[(&str, &str)] = &{
    let mut rules = [("", ""); TABLE.len()];
    let mut index = 0;
    while index < TABLE.len() {
        rules[index] = (TABLE[index].name, TABLE[index].what);
        index += 1;
    }
    rules
};
