import torch

from fer_lab.models import create_model


def test_class_activation_map_adds_up_to_the_logit():
    torch.manual_seed(0)
    model = create_model("baseline").eval()
    x = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        logits = model(x)
        cam = model.attention_maps(x)["class activation"]
        predicted = logits.argmax(1)
        torch.testing.assert_close(cam.mean((1, 2, 3)) + model.fc.bias[predicted], logits.amax(1))


def test_forward_is_the_classifier_on_the_embedding():
    model = create_model("baseline").eval()
    x = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.fc(model.embed(x)))
