//! The session store.

use super::{complaint, with};

const RIGHT: &str = "write memory, or the url of a Redis such as redis://10.0.0.5:6379/0";

#[test]
fn a_session_store_is_memory_or_a_redis() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("session_store", value));
        assert_eq!(complaint, format!("4: session_store: {}", expected.replace("RIGHT", RIGHT)), "{value}");
    }

    check("memroy", "\"memroy\" is no session store; did you mean memory?");
    check("disk", "\"disk\" is no session store; RIGHT");
    check("off", "\"off\" is no session store; RIGHT");
    check("5", "5 is a number; RIGHT");
    check("[memory]", "this is a list; RIGHT");
    check("null", "there is no value; RIGHT");
    check("redis", "\"redis\" has no scheme; RIGHT");
    check("10.0.0.5:6379", "\"10.0.0.5:6379\" has no scheme; RIGHT");
    check("://10.0.0.5:6379", "\"://10.0.0.5:6379\" has no scheme; RIGHT");
    check("http://10.0.0.5:6379", "\"http://10.0.0.5:6379\" has the scheme \"http\"; RIGHT");
    check(
        "rediss://10.0.0.5:6379",
        "\"rediss://10.0.0.5:6379\" asks for TLS, which is not supported in this version; write redis://",
    );
    check(
        "valkey://10.0.0.5:6379",
        "\"valkey://10.0.0.5:6379\" is right but for its scheme; write redis://, which Valkey speaks too",
    );
    for socket in ["unix:/run/redis.sock", "unix:///run/redis.sock", "/run/redis.sock", "redis+unix:///run/redis.sock"]
    {
        let expected = "is a Unix socket; only TCP is supported, such as redis://10.0.0.5:6379";
        check(socket, &format!("\"{socket}\" {expected}"));
    }
    for host in ["10.0.0.5", "redis", "[::1]", "\"::1\""] {
        let host = host.trim_matches('"');
        let expected = "has no port; write one behind the host, such as :6379";
        check(&format!("\"redis://{host}\""), &format!("\"redis://{host}\" {expected}"));
    }
    for address in ["a b:1", ":6379", "", "a,b:1", "[10.0.0.5]:1", "[::1:6379"] {
        let expected = "has no host that can be asked; write a name or an IP, such as 10.0.0.5:6379";
        check(&format!("\"redis://{address}\""), &format!("\"redis://{address}\" {expected}"));
    }
    check("redis://a:0", "\"redis://a:0\" has the port \"0\"; write 1 to 65535");
    check("redis://a:70000", "\"redis://a:70000\" has the port \"70000\"; write 1 to 65535");
    check("\"redis://a:\"", "\"redis://a:\" has the port \"\"; write 1 to 65535");
    check("redis://a:1/x", "\"redis://a:1/x\" has the database \"x\"; write a number such as /0");
    check("redis://a:1/-1", "\"redis://a:1/-1\" has the database \"-1\"; write a number such as /0");
    check(
        "redis://a:1/0?protocol=resp3",
        "\"redis://a:1/0?protocol=resp3\" has something behind the database; write it as \"redis://a:1/0\"",
    );
}

#[test]
fn a_session_store_has_bounds() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("session_store", value));
        assert_eq!(complaint, format!("4: session_store.{}", expected.replace("RIGHT", RIGHT)), "{value}");
    }

    check("{ url: [] }", "url: this is a list; RIGHT");
    check("{ url: redis }", "url: \"redis\" has no scheme; RIGHT");
    check("{ sessions: 999 }", "sessions: 999 is out of range; write a number from 1000 to 100000000");
    check("{ sessions: 100000001 }", "sessions: 100000001 is out of range; write a number from 1000 to 100000000");
    check("{ sessions: 1m }", "sessions: \"1m\" is text; write a number from 1000 to 100000000");
    check("{ idle: 999ms }", "idle: \"999ms\" is out of range; write 1s to 30d");
    check("{ idle: 31d }", "idle: \"31d\" is out of range; write 1s to 30d");
    check("{ url: \"redis://a:1\", timeout: 0ms }", "timeout: \"0ms\" is out of range; write 1ms to 10s");
    check("{ url: \"redis://a:1\", timeout: 11s }", "timeout: \"11s\" is out of range; write 1ms to 10s");
    let only = "means something only with Redis; write its url, or remove this";
    check("{ timeout: 50ms }", &format!("timeout: {only}"));
    check("{ url: memory, timeout: 50ms }", &format!("timeout: {only}"));
    check("{ password_file: /etc/hostname }", &format!("password_file: {only}"));
    check("{ size: 1 }", "size: unknown key; known here: url, sessions, idle, timeout, password_file");
    // One mistake is told once.
    check("{ url: disk, timeout: 50ms, password_file: /x }", "url: \"disk\" is no session store; RIGHT");
}

#[test]
fn the_password_of_a_redis_may_be_in_a_file() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("session_store", value));
        assert_eq!(complaint, format!("4: session_store.password_file: {expected}"), "{value}");
    }

    let right = "write the absolute path of a file with the password";
    let url = "url: \"redis://user@a:1\"";
    check(&format!("{{ {url}, password_file: secret }}"), &format!("\"secret\" is not an absolute path; {right}"));
    check(
        &format!("{{ {url}, password_file: /nowhere/secret }}"),
        &format!("\"/nowhere/secret\" cannot be read: No such file or directory (os error 2); {right}"),
    );
    check(&format!("{{ {url}, password_file: /dev/null }}"), &format!("this file is empty; {right}"));
    check(
        "{ url: \"redis://:a@b:1\", password_file: /dev/null }",
        "the url has a password already; remove one of them",
    );
}

#[test]
fn no_complaint_shows_a_password() {
    for value in [
        "rediss://u:s3cret@a:1",
        "redis:u:s3cret@a:1",
        "u:s3cret@a:1",
        "redis://u:s3cret@a",
        "redis://u:s3cret@a:0",
        "redis://u:s3cret@a:1/x",
        "redis://u:s3cret@a:1/0?x",
        "redis://u:%s3cret@a:1",
        "redis://u:%e9s3cret@a:1",
        "redis://u:s3cret#/?@a:0",
        "redis://s3cret@a:1",
        "http://u:s3cret@a:1",
        "unix:s3cret@a",
        "[\"redis://u:s3cret@a:1\"]",
        "{ \"redis://u:s3cret@a:1\": 1 }",
        "{ url: \"redis://u:s3cret@a\" }",
    ] {
        let value = if value.starts_with(['[', '{']) { value.to_owned() } else { format!("{value:?}") };
        let complaint = complaint(&with("session_store", &value));
        assert!(complaint.starts_with("4: session_store"), "{complaint}");
        assert!(!complaint.contains("s3cret"), "{complaint}");
    }
}
