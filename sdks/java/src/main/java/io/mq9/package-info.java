/**
 * mq9: asynchronous messaging for software agents, on NATS.
 *
 * <p>Each agent has durable mailboxes; sender and receiver need not be online at the same time.
 *
 * <pre>{@code
 * try (Client client = Client.connect("nats://127.0.0.1:4222")) {
 *   String address = client.mailboxCreate();
 *   client.send(address, Payload.text("hello"));
 *   for (Message message : client.fetch(address, FetchOptions.builder().deliver(Deliver.EARLIEST).build()).messages()) {
 *     System.out.println(message.text());
 *   }
 * }
 * }</pre>
 */
@NullMarked
package io.mq9;

import org.jspecify.annotations.NullMarked;
