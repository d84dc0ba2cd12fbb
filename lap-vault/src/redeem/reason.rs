use http::StatusCode;

/// Why a request was refused or did not come to a good end: a fixed code, so that neither an upstream's text
/// nor a value can leak through a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No credential header carries anything.
    NoCredential,
    /// The presented credential is no stub of an attached sandbox.
    UnknownStub,
    /// Two different stubs are presented at once.
    AmbiguousCredential,
    /// The sandbox was detached while the request was on its way.
    Detached,
    /// The request target is not a plain path of this relay.
    BadTarget,
    /// The path is not one of the model paths.
    PathNotAllowed,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The credential is not bound to the gateway, this port, method or path.
    NotBound,
    /// The sandbox has too many requests in flight.
    TooManyRequests,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The value was not granted in time.
    NotGranted,
    /// No gateway was configured in time.
    NoGateway,
    /// The gateway cannot be reached.
    UpstreamConnect,
    /// The gateway closed or broke the connection.
    UpstreamFailed,
    /// The gateway did not answer in time.
    UpstreamTimeout,
    /// The gateway answered in an encoding that cannot be searched for the secret.
    UpstreamEncoding,
    /// The client stopped sending its body.
    ClientTimeout,
}

impl Reason {
    /// The code in receipts and problem documents.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::UnknownStub => "unknown_stub",
            Self::AmbiguousCredential => "ambiguous_credential",
            Self::Detached => "detached",
            Self::BadTarget => "bad_target",
            Self::PathNotAllowed => "path_not_allowed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotBound => "not_bound",
            Self::TooManyRequests => "too_many_requests",
            Self::BodyTooLarge => "body_too_large",
            Self::NotGranted => "not_granted",
            Self::NoGateway => "no_gateway",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamEncoding => "upstream_encoding",
            Self::ClientTimeout => "client_timeout",
        }
    }

    /// The status the client sees.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NoCredential | Self::UnknownStub | Self::AmbiguousCredential | Self::Detached => {
                StatusCode::UNAUTHORIZED
            }
            Self::BadTarget => StatusCode::BAD_REQUEST,
            Self::PathNotAllowed | Self::MethodNotAllowed | Self::NotBound => StatusCode::FORBIDDEN,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotGranted | Self::NoGateway => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamConnect | Self::UpstreamFailed | Self::UpstreamEncoding => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientTimeout => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// One sentence for a person.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NoCredential => {
                "Send the stub key in Authorization: Bearer, x-api-key or x-litellm-api-key."
            }
            Self::UnknownStub => "The key is not a stub of a running sandbox.",
            Self::AmbiguousCredential => "Two different stubs were sent; send one.",
            Self::Detached => "The sandbox of this stub has ended.",
            Self::BadTarget => {
                "The request target is not a plain path: no dot segments, escapes, empty segments or other hosts."
            }
            Self::PathNotAllowed => "The model relay forwards model and MCP paths only.",
            Self::MethodNotAllowed => "The model relay does not forward this method on this path.",
            Self::NotBound => "This credential is not bound to the gateway, method or path.",
            Self::TooManyRequests => "This sandbox has too many requests in flight; try again.",
            Self::BodyTooLarge => "The body is larger than the relay's limit.",
            Self::NotGranted => "The value of this credential is not known yet; try again.",
            Self::NoGateway => "No model gateway is configured yet; try again.",
            Self::UpstreamConnect => "The model gateway cannot be reached.",
            Self::UpstreamFailed => "The model gateway broke the connection.",
            Self::UpstreamTimeout => "The model gateway did not answer in time.",
            Self::UpstreamEncoding => "The model gateway answered in an encoding the relay does not pass on.",
            Self::ClientTimeout => "The request body did not arrive in time.",
        }
    }

    /// How many seconds to wait before the same request makes sense again.
    pub const fn retry_after_seconds(self) -> Option<u32> {
        match self {
            Self::TooManyRequests | Self::NotGranted | Self::NoGateway => Some(1),
            Self::UpstreamConnect => Some(2),
            _ => None,
        }
    }
}
