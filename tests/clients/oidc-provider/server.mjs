// An OpenID Connect issuer on a port of loopback: oidc-provider as it is, with two ways in for tests.
//
//   node server.mjs PORT FOLDER     FOLDER holds node_modules
//
// Clients log in with client_credentials and get tokens that are JWTs, signed by the algorithm that their resource
// names (urn:RS256, …). POST /sign signs whatever header and claims a test wants, by the same keys. Its keys are new at
// each start: a restart is a rotation.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { generateKeyPairSync, sign, constants, createHmac } from "node:crypto";
import { createServer } from "node:http";

const [port, folder] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")).href);

const issuer = `http://127.0.0.1:${port}`;
const pairs = {
  RS256: generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: generateKeyPairSync("ec", { namedCurve: "P-256" }),
  ES384: generateKeyPairSync("ec", { namedCurve: "P-384" }),
  EdDSA: generateKeyPairSync("ed25519"),
};
pairs.PS256 = pairs.RS256;
const own = Math.random().toString(36).slice(2);
const jwk = (name) => ({ ...pairs[name].privateKey.export({ format: "jwk" }), use: "sig", kid: `${name}-${own}` });
const algorithms = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];

const client = (id) => ({
  client_id: id, client_secret: `secret-of-${id}`, grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
});
const provider = new Provider(issuer, {
  clients: ["phone", "desk", "stranger"].map(client),
  jwks: { keys: ["RS256", "ES256", "ES384", "EdDSA"].map(jwk) },
  enabledJWA: { idTokenSigningAlgValues: algorithms },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: "mail", audience: "mail_api", accessTokenFormat: "jwt", accessTokenTTL: 600,
        jwt: { sign: { alg: resource.split(":")[1] } },
      }),
    },
  },
  extraTokenClaims: (_, token) => ({ azp: token.clientId }),
});

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

// What is asked: { key, header, claims, as }; `as` is how it is really signed, by default as the header says.
function forge({ key, header, claims, as = header.alg }) {
  const text = `${encode({ kid: `${key}-${own}`, ...header })}.${encode(claims)}`;
  const pair = pairs[key];
  const how = {
    RS256: () => sign("sha256", text, pair.privateKey),
    PS256: () => sign("sha256", text, { key: pair.privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }),
    ES256: () => sign("sha256", text, { key: pair.privateKey, dsaEncoding: "ieee-p1363" }),
    ES384: () => sign("sha384", text, { key: pair.privateKey, dsaEncoding: "ieee-p1363" }),
    EdDSA: () => sign(null, text, pair.privateKey),
    HS256: () => createHmac("sha256", pair.publicKey.export({ type: "spki", format: "pem" })).update(text).digest(),
    none: () => Buffer.alloc(0),
  };
  return `${text}.${how[as]().toString("base64url")}`;
}

const serve = provider.callback();
createServer((request, response) => {
  if (request.url !== "/sign") return serve(request, response);
  let body = "";
  request.on("data", (data) => (body += data));
  request.on("end", () => response.end(forge(JSON.parse(body))));
}).listen(Number(port), "127.0.0.1");
