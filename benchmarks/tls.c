/* The loader's sessions in TLS, the same for every proxy: TLS 1.3, one cipher, one group, one signature,
 * and the certificate that it is told to expect, with RSA-2048.
 *
 *     load ... full|resumed CERTIFICATE
 *
 * Each connection makes a full handshake, or resumes the session that the one before it was given a
 * ticket for; that it did so, and was given a ticket again, is checked for each. */

#define _GNU_SOURCE
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "channel.h"

#define CIPHER "TLS_AES_256_GCM_SHA384"
#define GROUP "X25519"
#define SIGNATURE "rsa_pss_rsae_sha256"
#define NAME "localhost"
enum { KEY_BITS = 2048 };

struct channel {
    SSL *ssl; /* NULL: no connection */
    SSL_SESSION *ticket;
    bool begun, offered;
    int tickets;
};

/* One record each: with room for a whole one, nothing stays inside that epoll would not know of. */
const int channel_recvs = 16;

static SSL_CTX *context;
static bool resumes, counts;
static char problem[256];

static void die(const char *what)
{
    fprintf(stderr, "%s: ", what);
    ERR_print_errors_fp(stderr);
    exit(2);
}

/* OpenSSL reports a session here when a ticket comes. */
static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct channel *channel = SSL_get_app_data(ssl);
    SSL_SESSION_free(channel->ticket);
    channel->ticket = session;
    channel->tickets++;
    return 1;
}

bool channels_set_up(int count, char **arguments)
{
    if (count != 2 || (strcmp(arguments[0], "full") != 0 && strcmp(arguments[0], "resumed") != 0))
        return false;
    resumes = strcmp(arguments[0], "resumed") == 0;
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL)
        die("SSL_CTX_new");
    if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, CIPHER) || !SSL_CTX_set1_groups_list(context, GROUP) ||
        !SSL_CTX_set1_sigalgs_list(context, SIGNATURE))
        die("what TLS is to be");
    if (!SSL_CTX_load_verify_locations(context, arguments[1], NULL))
        die(arguments[1]);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_ticket);
    return true;
}

void channels_count(void)
{
    counts = true;
}

struct channel *channel_new(void)
{
    struct channel *channel = calloc(1, sizeof *channel);
    if (channel == NULL)
        die("calloc");
    return channel;
}

uint32_t channel_open(struct channel *channel, int fd)
{
    channel->ssl = SSL_new(context);
    if (channel->ssl == NULL || !SSL_set_fd(channel->ssl, fd) || !SSL_set1_host(channel->ssl, NAME) ||
        !SSL_set_tlsext_host_name(channel->ssl, NAME))
        die("SSL_new");
    SSL_set_app_data(channel->ssl, channel);
    SSL_set_connect_state(channel->ssl);
    channel->begun = false;
    channel->tickets = 0;
    channel->offered = resumes && channel->ticket != NULL;
    if (channel->offered && !SSL_set_session(channel->ssl, channel->ticket))
        die("SSL_set_session");
    /* The client speaks first. */
    return EPOLLOUT;
}

static int failure(struct channel *channel, int returned)
{
    int error = SSL_get_error(channel->ssl, returned);
    if (error == SSL_ERROR_WANT_READ)
        return NOTHING_YET;
    if (error == SSL_ERROR_ZERO_RETURN)
        snprintf(problem, sizeof problem, "TLS ended early");
    else if (error == SSL_ERROR_SSL)
        ERR_error_string_n(ERR_peek_error(), problem, sizeof problem);
    else
        snprintf(problem, sizeof problem, "TLS ended without close_notify: error %d, %s", error,
                 strerror(errno));
    return BROKEN;
}

static bool refused(const char *what)
{
    snprintf(problem, sizeof problem, "%s", what);
    return false;
}

/* Whether the handshake is the one that all proxies are to be compared by. */
static bool as_agreed(struct channel *channel)
{
    SSL *ssl = channel->ssl;
    int type = NID_undef;
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (SSL_version(ssl) != TLS1_3_VERSION)
        return refused("not TLS 1.3");
    if (strcmp(SSL_get_cipher_name(ssl), CIPHER) != 0)
        return refused("not " CIPHER);
    if (SSL_get_negotiated_group(ssl) != NID_X25519)
        return refused("not " GROUP);
    if (certificate == NULL || EVP_PKEY_get_bits(X509_get0_pubkey(certificate)) != KEY_BITS)
        return refused("no certificate with an RSA key of 2048 bits");
    if (counts && resumes && !channel->offered)
        return refused("there is no ticket to resume with");
    if (SSL_session_reused(ssl) != channel->offered)
        return refused(channel->offered ? "a full handshake in place of a resumption" : "resumed");
    if (!channel->offered && (!SSL_get_peer_signature_type_nid(ssl, &type) || type != NID_rsassaPss))
        return refused("not signed with " SIGNATURE);
    return true;
}

int channel_begin(struct channel *channel, int fd)
{
    (void)fd;
    if (channel->begun)
        return 0;
    ERR_clear_error();
    int returned = SSL_do_handshake(channel->ssl);
    if (returned != 1)
        return failure(channel, returned);
    channel->begun = true;
    return as_agreed(channel) ? 0 : BROKEN;
}

ssize_t channel_recv(struct channel *channel, int fd, void *data, size_t size)
{
    (void)fd;
    ERR_clear_error();
    int got = SSL_read(channel->ssl, data, (int)size);
    if (got > 0)
        return got;
    return SSL_get_error(channel->ssl, got) == SSL_ERROR_ZERO_RETURN ? 0 : failure(channel, got);
}

bool channel_send(struct channel *channel, int fd, const void *data, size_t size)
{
    (void)fd;
    ERR_clear_error();
    int sent = SSL_write(channel->ssl, data, (int)size);
    if (sent == (int)size)
        return true;
    failure(channel, sent);
    return false;
}

bool channel_end(struct channel *channel)
{
    if (channel->tickets == 0)
        return refused("there came no ticket");
    /* Ours to the peer's close_notify; it may have gone already. */
    SSL_shutdown(channel->ssl);
    return true;
}

void channel_drop(struct channel *channel)
{
    SSL_free(channel->ssl);
    channel->ssl = NULL;
}

const char *channel_problem(void)
{
    return problem;
}
