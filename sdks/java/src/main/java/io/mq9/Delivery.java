package io.mq9;

/** Through whom, for which group and under which lease a message was delivered. */
final class Delivery {
  final Client client;
  final String mailAddress;
  final String groupName;
  final String leaseId;
  final long leaseMs;
  volatile boolean settled;

  Delivery(Client client, String mailAddress, String groupName, String leaseId, long leaseMs) {
    this.client = client;
    this.mailAddress = mailAddress;
    this.groupName = groupName;
    this.leaseId = leaseId;
    this.leaseMs = leaseMs;
  }
}
