// An identity provider for browsers: its page, a code for whoever goes on there, and a token for each code, once and only to who
// knows what the challenge was made of (RFC 7636).
import { createHash, createSign, generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** `localhost`, where the console is at 127.0.0.1: to a browser that is another site. */
export async function provider({ client, secret, person }) {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const codes = new Map();
  const said = [];
  const token = (claims) => {
    const signed = `${encode({ alg: 'ES256', kid: 'one' })}.${encode(claims)}`;
    const signature = createSign('SHA256').update(signed).sign({ key: privateKey, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${signature.toString('base64url')}`;
  };
  const server = createServer((request, response) => {
    const url = new URL(request.url, issuer);
    const json = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    switch (url.pathname) {
      case '/.well-known/openid-configuration':
        return json(200, { issuer, jwks_uri: `${issuer}/keys`, authorization_endpoint: `${issuer}/authorize`, token_endpoint: `${issuer}/token` });
      case '/keys':
        return json(200, { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'ES256' }] });
      case '/authorize':
        response.writeHead(200, { 'content-type': 'text/html' });
        return response.end(`<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,"><h1>The provider</h1>
          <p><a href="/go-on${url.search.replaceAll('&', '&amp;')}">Go on as ${person.name}</a></p>`);
      case '/go-on': {
        const asked = url.searchParams;
        const code = randomUUID();
        codes.set(code, { challenge: asked.get('code_challenge'), method: asked.get('code_challenge_method'), redirect: asked.get('redirect_uri'), nonce: asked.get('nonce') });
        const back = new URL(asked.get('redirect_uri'));
        back.searchParams.set('code', code);
        back.searchParams.set('state', asked.get('state'));
        return response.writeHead(303, { location: back.href }).end();
      }
      case '/token': {
        let text = '';
        request.on('data', (piece) => (text += piece));
        return request.on('end', () => {
          const form = new URLSearchParams(text);
          const code = codes.get(form.get('code'));
          codes.delete(form.get('code'));
          const basic = `Basic ${Buffer.from(`${client}:${secret}`).toString('base64')}`;
          const made = createHash('sha256').update(form.get('code_verifier') ?? '').digest('base64url');
          const wrong = !code ? 'the code' : code.method !== 'S256' || made !== code.challenge ? 'the verifier' : form.get('redirect_uri') !== code.redirect ? 'the address' : request.headers.authorization !== basic ? 'the client' : '';
          said.push(wrong || 'a token');
          if (wrong) return json(400, { error: 'invalid_grant', error_description: `${wrong} is wrong` });
          const now = Math.floor(Date.now() / 1000);
          return json(200, { token_type: 'Bearer', id_token: token({ iss: issuer, aud: client, sub: person.name, exp: now + 3600, iat: now, nonce: code.nonce, roles: person.roles }) });
        });
      }
      default:
        return json(404, {});
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://localhost:${server.address().port}`;
  return { issuer, said, close: () => (server.closeAllConnections(), server.close()) };
}
