//! Advice about a request that got no answer, or one of another program.

use crate::http::NO_SUCH_RESOURCE;

/// Errors of a connection whose server speaks first, or closes it before a request.
const OTHER_PROTOCOL: [&str; 3] =
    ["invalid HTTP version parsed", "unexpected message from connection", "connection was not ready"];

/// Adds what helps to an error of a connection. `is_socket` is true for `unix://`.
pub(super) fn of_connection(problem: &str, is_socket: bool, may_lack_certificate: bool) -> String {
    let has = |words: &str| problem.contains(words);
    let hint = if has("CertificateRequired") {
        ": the server requires a client certificate: use --client-cert and --client-key"
    } else if has("UnknownIssuer") {
        ": give the CA's certificate with --ca-cert"
    } else if has("NotValidForName") {
        ": name the server in --endpoint as its certificate does"
    } else if has("Expired") {
        ": the server's certificate has expired; renew it there"
    } else if !may_lack_certificate && OTHER_PROTOCOL.into_iter().any(has) {
        ": if the server speaks TLS, its URL begins with https://; the authz plane (port 4423) is for Envoy alone"
    } else if has("corrupt message") {
        ": if the server doesn't speak TLS, its URL begins with http://"
    } else if is_socket && (has("No such file") || has("Connection refused")) {
        ": no server listens on this socket: name that of serve.http.socket"
    } else if has("Connection refused") {
        ": nothing listens there: start `talos serve`, or name another server (--endpoint, TALOS_ENDPOINT, a context)"
    } else if has("lookup address") || has("Name or service not known") || has("No address associated") {
        ": check the host name of the endpoint (--endpoint, TALOS_ENDPOINT, a context)"
    } else if may_lack_certificate {
        " (if the server requires a client certificate, use --client-cert and --client-key)"
    } else if has("connection closed before message completed") || has("Connection reset") {
        ": if the server speaks TLS, its URL begins with https://; else its log tells why it hung up"
    } else {
        ""
    };
    format!("{problem}{hint}")
}

/// Tells what an answer of another program means, by its status. `body` is its text.
pub(super) fn of_foreign_answer(status: u16, body: &str) -> &'static str {
    match status {
        300..400 => "a redirect, which is not followed: name the URL to which it leads",
        400 if body.to_ascii_lowercase().contains("https") => {
            "which is not a response of this API: the server speaks TLS, so its URL begins with https://"
        }
        401 | 403 | 407 => {
            "which is not a response of this API: something in front of the server refuses the request; ask its operator \
             how to get through, or go around it"
        }
        413 | 431 => {
            "which is not a response of this API: something in front of the server takes less at once"
        }
        429 => {
            "which is not a response of this API: something in front of the server limits requests; try again later"
        }
        502..=504 => {
            "which is not a response of this API: something in front of the server doesn't reach it; is `talos serve` \
             running?"
        }
        _ => "which is not a response of this API: is it the base URL of a Talos server?",
    }
}

/// Adds what helps to an error of the API.
pub(super) fn of_api(reason: &str, message: &str, is_authenticated: bool) -> &'static str {
    match reason {
        "UNAUTHORIZED" if !is_authenticated => ": authenticate with --client-cert or --token-file",
        "NOT_FOUND" if message == NO_SUCH_RESOURCE => {
            ": the endpoint may be another plane's, or have a path too many: keys are managed at serve.http (port 4420), \
             `status` is asked at serve.metrics (4422)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_cure() {
        for (problem, is_socket, cure) in [
            ("Connection refused (os error 111)", false, "`talos serve`"),
            ("Connection refused (os error 111)", true, "serve.http.socket"),
            ("No such file or directory (os error 2)", true, "serve.http.socket"),
            ("failed to lookup address information: Name or service not known", false, "host name"),
            ("invalid HTTP version parsed", false, "https://"),
            ("connection was not ready", false, "is for Envoy alone"),
            ("received corrupt message of type InvalidContentType", false, "http://"),
            ("invalid peer certificate: UnknownIssuer", false, "--ca-cert"),
            ("connection closed before message completed", false, "https://"),
        ] {
            assert!(of_connection(problem, is_socket, false).contains(cure), "{problem}");
        }
        // The server may hang up before the request is sent.
        assert!(of_connection("connection was not ready", false, true).contains("--client-cert"));
        assert!(of_foreign_answer(400, "sent an HTTP request to an HTTPS server").contains("https://"));
        assert!(
            of_foreign_answer(502, "").contains("talos serve")
                && of_foreign_answer(302, "").contains("redirect")
        );
        assert!(of_foreign_answer(200, "<html>").contains("base URL"));
        assert!(of_api("NOT_FOUND", NO_SUCH_RESOURCE, false).contains("4420"));
        assert_eq!(of_api("NOT_FOUND", "the network is unknown", false), "");
    }
}
