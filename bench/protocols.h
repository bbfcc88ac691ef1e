/* The protocols of load.c: how a request is built, where a reply ends, and what is wrong with it.
 *
 * A part of load.c, which includes it once and has the options (`want`) and the counters that are used here.
 */

/* --- requests; every value differs from the one before in its first bytes --- */

static void next_value(void) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 8 && i < want.value_bytes; i++)
        value[i] = digits[(sent >> (4 * i)) & 15];
}

static size_t build_get(char *to, uint64_t key) {
    return sprintf(to, "*2\r\n$3\r\nGET\r\n$%d\r\nkey:%012llu\r\n", KEY_BYTES, (unsigned long long)key);
}

static size_t build_set(char *to, uint64_t key) {
    next_value();
    size_t length = sprintf(to, "*3\r\n$3\r\nSET\r\n$%d\r\nkey:%012llu\r\n$%d\r\n", KEY_BYTES, (unsigned long long)key,
                            want.value_bytes);
    memcpy(to + length, value, want.value_bytes);
    memcpy(to + length + want.value_bytes, "\r\n", 2);
    return length + want.value_bytes + 2;
}

static size_t build_set_wait(char *to, uint64_t key) {
    size_t length = build_set(to, key);
    return length + sprintf(to + length, "*3\r\n$4\r\nWAIT\r\n$%d\r\n%d\r\n$1\r\n0\r\n", want.replicas > 9 ? 2 : 1,
                            want.replicas);
}

static size_t build_set_waitaof(char *to, uint64_t key) {
    size_t length = build_set(to, key);
    return length + sprintf(to + length, "*4\r\n$7\r\nWAITAOF\r\n$1\r\n1\r\n$%d\r\n%d\r\n$1\r\n0\r\n",
                            want.replicas > 9 ? 2 : 1, want.replicas);
}

static size_t http(char *to, const char *method, const char *path, const char *type, const char *before,
                   const char *body, int body_bytes, const char *after) {
    size_t length = sprintf(to, "%s %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
                            method, path, want.host, want.port, type,
                            strlen(before) + body_bytes + strlen(after), before);
    memcpy(to + length, body, body_bytes);
    return length + body_bytes + sprintf(to + length + body_bytes, "%s", after);
}

static size_t build_http_put(char *to, uint64_t key) {
    char path[64];
    next_value();
    sprintf(path, "/kv/key:%012llu", (unsigned long long)key);
    return http(to, "PUT", path, "application/json", "{\"value\":\"", value, want.value_bytes, "\"}");
}

static size_t build_http_put_bytes(char *to, uint64_t key) {
    char path[64];
    next_value();
    sprintf(path, "/kv/key:%012llu", (unsigned long long)key);
    return http(to, "PUT", path, "application/octet-stream", "", value, want.value_bytes, "");
}

static size_t base64(char *to, const char *from, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *at = to;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = (uint8_t)from[i] << 16;
        if (i + 1 < length) three |= (uint8_t)from[i + 1] << 8;
        if (i + 2 < length) three |= (uint8_t)from[i + 2];
        *at++ = digits[three >> 18];
        *at++ = digits[(three >> 12) & 63];
        *at++ = i + 1 < length ? digits[(three >> 6) & 63] : '=';
        *at++ = i + 2 < length ? digits[three & 63] : '=';
    }
    return at - to;
}

static size_t build_http_post_etcd(char *to, uint64_t key) {
    char name[32], before[128], key64[64];
    next_value();
    key64[base64(key64, name, sprintf(name, "key:%012llu", (unsigned long long)key))] = 0;
    sprintf(before, "{\"key\":\"%s\",\"value\":\"", key64);
    return http(to, "POST", "/v3/kv/put", "application/json", before, encoded,
                base64(encoded, value, want.value_bytes), "\"}");
}

/* --- replies: where the first one in these bytes ends, NULL while it is incomplete; notes what is wrong --- */

static const char *line_end(const char *from, const char *end) {
    const char *at = memchr(from, '\n', end - from);
    return at ? at + 1 : NULL;
}

static const char *resp_end(const char *from, const char *end) {
    const char *next = line_end(from, end);
    if (!next || (*from != '$' && *from != '*'))
        return next;
    long count = atol(from + 1);
    if (*from == '$')
        return count < 0 ? next : end - next >= count + 2 ? next + count + 2 : NULL;
    for (; next && count > 0; count--)
        next = next < end ? resp_end(next, end) : NULL;
    return next;
}

static void wrong(struct connection *c, const char *kind, size_t length) {
    if (!c->failed && measuring)
        count_error(kind, length);
    c->failed = 1;
}

/* `+OK` to a SET, a value to a GET, `:n` to a WAIT, `*2 :local :replicas` to a WAITAOF. */
static const char *resp_reply(struct connection *c, const char *from, const char *end) {
    const char *next = resp_end(from, end);
    if (!next)
        return NULL;
    if (*from == '-')
        wrong(c, from + 1, strcspn(from + 1, " \r"));
    else if (!strncmp(from, "$-1", 3) || !strncmp(from, "_", 1))
        wrong(c, "no such key", 11);
    else if (*from == ':' && atol(from + 1) < want.replicas)
        wrong(c, "too few replicas", 16);
    else if (*from == '*' && (atol(from + 5) < 1 || atol(line_end(from + 4, end) + 1) < want.replicas))
        wrong(c, "too few synced", 14);
    return next;
}

static const char *chunks_end(const char *from, const char *end) {
    for (;;) {
        const char *next = line_end(from, end);
        if (!next)
            return NULL;
        long size = strtol(from, NULL, 16);
        if (end - next < size + 2)
            return NULL;
        from = next + size + 2;
        if (!size)
            return from;
    }
}

static const char *http_reply(struct connection *c, const char *from, const char *end) {
    const char *body = memmem(from, end - from, "\r\n\r\n", 4);
    long length = 0;
    int chunked = 0;
    if (!body)
        return NULL;
    for (const char *line = line_end(from, end); line < body + 2; line = line_end(line, end)) {
        if (!strncasecmp(line, "content-length:", 15))
            length = atol(line + 15);
        if (!strncasecmp(line, "transfer-encoding: chunked", 26))
            chunked = 1;
    }
    body += 4;
    const char *next = chunked ? chunks_end(body, end) : end - body >= length ? body + length : NULL;
    if (next && strncmp(from + 9, "200", 3))
        wrong(c, from + 9, 3);
    return next;
}

static const struct mode modes[] = {
    {"resp-set", build_set, resp_reply, 1},
    {"resp-set-wait", build_set_wait, resp_reply, 2},
    {"resp-set-waitaof", build_set_waitaof, resp_reply, 2},
    {"resp-get", build_get, resp_reply, 1},
    {"http-put", build_http_put, http_reply, 1},
    {"http-put-bytes", build_http_put_bytes, http_reply, 1},
    {"http-post-etcd", build_http_post_etcd, http_reply, 1},
};
static const struct mode *mode;
