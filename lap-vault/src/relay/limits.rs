use std::time::Duration;

/// What bounds every connection and exchange of the relay.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a request waits for the gateway's address and the credential's value.
    pub grant: Duration,
    /// Reaching the gateway, TLS handshake included.
    pub connect: Duration,
    /// From the forwarded request to the head of the answer. A model may think for minutes.
    pub head: Duration,
    /// Silence within an answer.
    pub answer_idle: Duration,
    /// Silence within a request body.
    pub upload_idle: Duration,
    /// One exchange as a whole.
    pub exchange: Duration,
    /// An idle connection of a client, and the arrival of a request head.
    pub client_idle: Duration,
    /// Connections of clients at once.
    pub connections: usize,
    /// Requests of one sandbox at once.
    pub in_flight: usize,
    /// Bytes of one request body.
    pub body_bytes: u64,
    /// Bytes of one request head.
    pub head_bytes: usize,
    /// Headers of one request.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            grant: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            head: Duration::from_secs(600),
            answer_idle: Duration::from_secs(300),
            upload_idle: Duration::from_secs(60),
            exchange: Duration::from_secs(3600),
            client_idle: Duration::from_secs(120),
            connections: 4096,
            in_flight: 128,
            body_bytes: 512 << 20,
            head_bytes: 64 << 10,
            headers: 100,
        }
    }
}
