// Logs in, asks for everything, writes each message into a folder and deletes it; for test_node_pop3.py.
import {writeFile} from 'node:fs/promises';
import Pop3Command from 'node-pop3';

const [port, user, password, folder] = process.argv.slice(2);
const client = new Pop3Command({host: '127.0.0.1', port: Number(port), user, password});
const numbers = (await client.LIST()).map(([number]) => Number(number));
await client.UIDL();
await client.UIDL(1);
await client.LIST(1);
await client.STAT();
await client.NOOP();
await client.LAST().catch(() => {}); // Dovecot does not know it.
await client.TOP(1, 0);
for (const number of numbers) {
  await writeFile(`${folder}/mail-${number}`, await client.RETR(number));
}
await client.DELE(1);
await client.RSET();
for (const number of numbers) {
  await client.DELE(number);
}
await client.QUIT();
